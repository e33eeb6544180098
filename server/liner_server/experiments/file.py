"""Experiments as an operator writes them down: LINER_EXPERIMENTS_FILE, JSON, read at the start.

{"experiments": [{"name": "qwen3", "salt": "", "population": [0, 0.5], "shadow": false,
                  "variants": [{"name": "experimental", "model": "experimental",
                                "traffic": 0.1}],
                  "exclude_tracks": ["T-1"], "exclude_file": "vip.txt"}]}
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from liner_server.core.experiment import CONTROL, EXPERIMENTAL, Experiment, Variant, overlapping

_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")
_MOST = 32
_KEYS = frozenset(
    {"name", "salt", "population", "shadow", "variants", "exclude_tracks", "exclude_file"}
)


class ExperimentsFileError(ValueError):
    """The file cannot be used; the text says where and why."""


def read(path: Path) -> Sequence[Experiment]:
    """Return the experiments of a file.

    Raises:
        ExperimentsFileError: it cannot be read or used.

    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExperimentsFileError(f"it cannot be read as JSON: {error}") from error
    stated = data.get("experiments") if isinstance(data, dict) else None
    if not isinstance(stated, list) or not 0 < len(stated) <= _MOST:
        raise ExperimentsFileError(f'it needs a list "experiments" of 1 to {_MOST}')
    found = [_experiment(one, f"experiments[{place}]", path) for place, one in enumerate(stated)]
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise ExperimentsFileError("two experiments have the same name")
    if both := overlapping(found):
        raise ExperimentsFileError(
            f"{both[0]} and {both[1]} could have the same track: give each its own part, such as "
            '"population": [0, 0.5] and [0.5, 1]'
        )
    return found


def _experiment(stated: Any, where: str, path: Path) -> Experiment:
    if not isinstance(stated, dict) or set(stated) - _KEYS:
        raise ExperimentsFileError(f"{where}: an object with keys of {', '.join(sorted(_KEYS))}")
    variants = stated.get("variants")
    if not isinstance(variants, list) or not 0 < len(variants) <= 8:
        raise ExperimentsFileError(f"{where}.variants: a list of 1 to 8")
    tried = [_variant(one, f"{where}.variants[{place}]") for place, one in enumerate(variants)]
    names = [one.name for one in tried]
    if len(set(names)) < len(names) or CONTROL in names:
        raise ExperimentsFileError(f"{where}.variants: each its own name, none {CONTROL!r}")
    if sum(one.traffic for one in tried) > 1 + 1e-9:
        raise ExperimentsFileError(f"{where}.variants: their traffic sums to more than 1")
    salt = stated.get("salt", "")
    shadow = stated.get("shadow", False)
    if not isinstance(salt, str) or len(salt) > 64 or not isinstance(shadow, bool):
        raise ExperimentsFileError(f"{where}: salt is a text of at most 64, shadow true or false")
    return Experiment(
        name=_name(stated, where),
        variants=tuple(tried),
        salt=salt,
        population=_population(stated.get("population", [0, 1]), where),
        excluded=frozenset(_excluded(stated, where, path)),
        shadow=shadow,
    )


def _variant(stated: Any, where: str) -> Variant:
    if not isinstance(stated, dict) or set(stated) - {"name", "model", "traffic"}:
        raise ExperimentsFileError(f"{where}: an object with the keys name, model, traffic")
    traffic = _share(stated.get("traffic"), f"{where}.traffic")
    model = stated.get("model", EXPERIMENTAL)
    if not isinstance(model, str) or not model:
        raise ExperimentsFileError(f"{where}.model: the name of a configured model")
    return Variant(name=_name(stated, where), model=model, traffic=traffic)


def _name(stated: Mapping[str, Any], where: str) -> str:
    name = stated.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise ExperimentsFileError(f"{where}.name: 1 to 64 of A-Z a-z 0-9 _ . -")
    return name


def _population(stated: Any, where: str) -> tuple[float, float]:
    if not isinstance(stated, list) or len(stated) != 2:
        raise ExperimentsFileError(f"{where}.population: [from, to], such as [0, 0.5]")
    low, high = (_share(end, f"{where}.population") for end in stated)
    if low >= high:
        raise ExperimentsFileError(f"{where}.population: from must be less than to")
    return low, high


def _share(stated: Any, where: str) -> float:
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 <= stated <= 1:
        raise ExperimentsFileError(f"{where}: a number from 0 to 1")
    return float(stated)


def _excluded(stated: Mapping[str, Any], where: str, path: Path) -> list[str]:
    tracks = stated.get("exclude_tracks", [])
    if not isinstance(tracks, list) or not all(isinstance(one, str) for one in tracks):
        raise ExperimentsFileError(f"{where}.exclude_tracks: a list of track_ids")
    file = stated.get("exclude_file")
    if file is None:
        return tracks
    try:
        # One track_id a line, beside the file that names it.
        lines = (path.parent / str(file)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentsFileError(f"{where}.exclude_file: {error}") from error
    return [*tracks, *filter(None, map(str.strip, lines))]
