"""Feature flags that an operator switches while the server runs, by writing a file.

The file holds a JSON object, with any of the settings' names and nothing else:

    {"ENABLE_EXPERIMENTAL_MODEL": false, "USE_OPENAI_FALLBACK": true}
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from liner.v1 import enrichment_pb2

from liner_server.watched_file import WatchedFile

_NAMES = {field.name.upper(): field.name for field in enrichment_pb2.FeatureFlags.DESCRIPTOR.fields}
"""By what the operator writes, the field of FeatureFlags."""


class FlagsFileError(ValueError):
    """A flags file that cannot be taken as it is; the text says what is wrong with it."""


class FlagsFile(WatchedFile):
    """The flags in force: what the file says, and `defaults` where it says nothing.

        async with FlagsFile(path, defaults) as flags:
            if flags.current.enable_batch_processing: ...

    Taking a flag out of the file is what returns it to its default.
    """

    kind = "flags"

    def __init__(
        self,
        path: Path,
        defaults: enrichment_pb2.FeatureFlags,
        *,
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        super().__init__(path, interval=interval)
        self._defaults = _copied(defaults)
        self._current = self._defaults

    @property
    def current(self) -> enrichment_pb2.FeatureFlags:
        """The flags in force now; the caller's own copy, which does not change later."""
        return _copied(self._current)

    def _take(self, data: bytes) -> None:
        self._current = parse_flags(data, self._defaults)

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self._current, name) for name in _NAMES.values()}


def parse_flags(data: bytes, defaults: enrichment_pb2.FeatureFlags) -> enrichment_pb2.FeatureFlags:
    """Return the flags that a file's bytes state, over the defaults.

    Raises:
        FlagsFileError: it is not a JSON object of known flags, each once, each true or false.

    """
    try:
        # Some editors begin a file with a byte order mark.
        stated = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique)
    except FlagsFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise FlagsFileError("it is not JSON in UTF-8") from error
    if not isinstance(stated, dict):
        raise FlagsFileError("it is not a JSON object")
    flags = _copied(defaults)
    for name, value in stated.items():
        if name not in _NAMES:
            raise FlagsFileError(f"{name[:40]!r} is none of {', '.join(_NAMES)}")
        if not isinstance(value, bool):
            raise FlagsFileError(f"{name} is neither true nor false")
        setattr(flags, _NAMES[name], value)
    return flags


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FlagsFileError("it names a flag twice")
    return found


def _copied(flags: enrichment_pb2.FeatureFlags) -> enrichment_pb2.FeatureFlags:
    copy = enrichment_pb2.FeatureFlags()
    copy.CopyFrom(flags)
    return copy
