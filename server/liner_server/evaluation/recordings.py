"""Fetches what the tables are fitted on beside the generator: `python -m
liner_server.evaluation.recordings --into DIR` writes DIR/fit.csv and DIR/report.csv.

Speech, sounds and music come out of Debian's packages (`apt-get download`, nothing is installed);
music with a known tempo or key is rendered from MMA's grooves and music21's scores. The report
file holds other grooves and scores, played by another sound font, and other sounds. Columns are
those of a labels file: path, bpm, bpm_octave_ok, key, content. Takes about 3 GB and an hour,
Debian 12, `pip install --no-deps tinysoundfont` and `pip install music21`.
"""

import argparse
import csv
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np

from liner_server.audio.spectra import SAMPLE_RATE, is_silent
from liner_server.evaluation import arranged
from liner_server.evaluation.encode import read, write
from liner_server.evaluation.heard import cached


@dataclass(frozen=True, kw_only=True)
class Source:
    """Recordings of one kind in one Debian package."""

    package: str
    pattern: str
    """Glob below the package's `usr/share`."""

    content: str
    without: tuple[str, ...] = ()
    """Parts of names that are something else: jingles among sounds, for example."""

    most: int = 35


_JINGLES = ("tada", "lifeup", "welldone", "coins_cleared", "savebell", "phone", "invincible",
            "chant", "hellish", "homerun", "fanfare", "victory", "music", "zik")  # fmt: skip

SOURCES = (
    Source(package="ktuberling-data", pattern="ktuberling/sounds/*/*.ogg", content="speech"),
    *(
        Source(
            package=f"asterisk-core-sounds-{language}-wav",
            pattern="asterisk/sounds/*/*.wav",
            content="speech",
            without=("beep", "tone", "music", "moh"),
            most=25,
        )
        for language in ("en", "fr", "es", "it", "ru")
    ),
    Source(
        package="tuxpaint-stamps-default", pattern="tuxpaint/stamps/**/*_desc*.ogg",
        content="speech", most=70,
    ),
    Source(
        package="tuxpaint-stamps-default", pattern="tuxpaint/stamps/animals/**/*.ogg",
        content="noise", without=("_desc",), most=70,
    ),
    Source(
        package="tuxpaint-stamps-default", pattern="tuxpaint/stamps/vehicles/**/*.ogg",
        content="noise", without=("_desc",),
    ),
    Source(
        package="fillets-ng-data", pattern="games/fillets-ng/sound/*/en/*.ogg", content="speech",
    ),
    Source(package="fillets-ng-data", pattern="games/fillets-ng/music/*.ogg", content="music"),
    Source(
        package="hedgewars-data", pattern="games/hedgewars/Data/Sounds/*.ogg", content="noise",
        without=_JINGLES,
    ),
    Source(
        package="hedgewars-data", pattern="games/hedgewars/Data/Sounds/voices/*/*.ogg",
        content="speech", without=("Singer",),
    ),
    Source(package="hedgewars-data", pattern="games/hedgewars/Data/Music/*.ogg", content="music"),
    Source(
        package="supertux-data", pattern="games/supertux2/sounds/*.*", content="noise",
        without=_JINGLES,
    ),
    Source(package="supertux-data", pattern="games/supertux2/music/*/*.ogg", content="music"),
    Source(package="lincity-ng-data", pattern="games/lincity-ng/sounds/*.wav", content="noise",
           most=70, without=("School", "Commune")),
    Source(package="lincity-ng-data", pattern="games/lincity-ng/music/*/*.ogg", content="music"),
    Source(
        package="minetest-data", pattern="games/minetest/games/minetest_game/mods/*/sounds/*.ogg",
        content="noise",
    ),
    Source(
        package="freedroidrpg-data", pattern="freedroidrpg/data/sound/effects/**/*.ogg",
        content="noise", without=("voice", "tux_", "Tux", "Cant", "Carry", "Enough"),
    ),
    Source(
        package="freedroidrpg-data", pattern="freedroidrpg/data/sound/music/*.ogg", content="music"
    ),
    Source(package="marsshooter-data", pattern="games/marsshooter/audio/toon/*", content="noise"),
    Source(package="marsshooter-data", pattern="games/marsshooter/audio/music/*", content="music"),
    Source(package="extremetuxracer-data", pattern="games/etr/sounds/*.wav", content="noise"),
    Source(package="extremetuxracer-data", pattern="games/etr/music/*.ogg", content="music"),
    Source(package="trackballs-data", pattern="games/trackballs/sfx/*.wav", content="noise"),
    Source(package="trackballs-data", pattern="games/trackballs/music/*.ogg", content="music"),
    Source(
        package="frozen-bubble-data", pattern="games/frozen-bubble/snd/*.ogg", content="noise",
        without=("zik", "lose"),
    ),
    Source(
        package="frozen-bubble-data", pattern="games/frozen-bubble/snd/*zik*.ogg", content="music"
    ),
    Source(package="wesnoth-1.16-music", pattern="games/wesnoth/**/*.ogg", content="music"),
    Source(package="warzone2100-music", pattern="games/warzone2100/**/*.opus", content="music"),
    Source(package="xmoto-data", pattern="games/xmoto/Textures/Musics/*.ogg", content="music"),
    Source(package="singularity-music", pattern="**/*.ogg", content="music"),
    Source(package="asc-music", pattern="**/*.mp3", content="music"),
    Source(package="pingus-data", pattern="games/pingus/**/*.wav", content="noise"),
    *(
        Source(package=f"{game}-data", pattern="**/*.ogg", content="music")
        for game in ("mu-cade", "parsec47", "torus-trooper", "tumiki-fighters", "rrootage",
                     "titanion", "gunroar", "noiz2sa", "a7xpg")
    ),
)  # fmt: skip
"""Where recordings come from. Sample packs that sets for evaluation are made of stay out."""

FIT_FONT = ("fluid-soundfont-gm", "FluidR3_GM.sf2")
REPORT_FONT = ("timgm6mb-soundfont", "TimGM6mb.sf2")
ACCOMPANIMENTS, HELD_OUT = range(200), range(900, 960)
"""Seeds of grooves to fit on, and to report on."""

Row = dict[str, str]


def unpack(package: str, folder: Path) -> Path:
    """Return where a package's files are, fetching it unless it is there."""
    place = folder / package
    if not place.exists():
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True)
        archive = next(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg", "-x", str(archive), str(place)], check=True)
        archive.unlink()
    return place


def found(source: Source, folder: Path) -> list[Path]:
    """Return a source's recordings, evenly chosen if there are too many."""
    root = unpack(source.package, folder) / "usr" / "share"
    paths = [
        path
        for path in sorted(root.glob(source.pattern))
        if path.is_file()
        and path.suffix in (".ogg", ".oga", ".wav", ".mp3", ".opus", ".flac")
        and not any(part in str(path.relative_to(root)) for part in source.without)
    ]
    step = max(1, len(paths) // source.most)
    return paths[::step][: source.most]


def cut(item: tuple[Source, Path], *, into: Path) -> list[Row]:
    """Return the clips of one recording: music thrice, of 20, 6 and 1 to 3 s, all else whole.

    What cannot be decoded to its end gives none.
    """
    source, path = item
    try:
        mono = read(path, SAMPLE_RATE)
    except av.FFmpegError:
        return []
    seconds = len(mono) / SAMPLE_RATE
    name = f"{source.package}-{zlib.crc32(str(path).encode()):08x}"
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    short = float(np.exp(rng.uniform(0, np.log(3))))
    lengths = (20.0, 6.0, short) if source.content == "music" else (min(seconds, 20.0),)
    if seconds < (8 if source.content == "music" else 0.9):
        return []
    rows = []
    for number, length in enumerate(lengths):
        begin = rng.uniform(0, max(0.0, seconds - length))
        clip = mono[int(begin * SAMPLE_RATE) : int((begin + length) * SAMPLE_RATE)]
        if is_silent(clip * 0.1):
            continue
        place = into / f"{name}-{number}.flac"
        write(place, np.clip(clip, -1, 1)[:, None], SAMPLE_RATE)
        rows.append(_row(place, content=source.content, group=str(path.name)))
    return rows


def groove(seed: int, *, folder: Path, into: Path) -> list[Row]:
    """Return one of MMA's grooves as a clip; none if there is nothing to hear in it."""
    library = folder / "mma" / "usr" / "share" / "mma"
    held = seed in HELD_OUT
    clip = arranged.accompaniment(
        seed, library=library, font=_font(folder, held=held), sample_rate=SAMPLE_RATE
    )
    return [] if clip is None else [_keep(clip, into, held=held)]


def score(item: tuple[int, Path], *, folder: Path, into: Path) -> list[Row]:
    """Return one of music21's scores as a clip; none if its key is not certain."""
    seed, path = item
    held = seed % 4 == 3
    clip = arranged.tune(path, seed, font=_font(folder, held=held), sample_rate=SAMPLE_RATE)
    return [] if clip is None else [_keep(clip, into, held=held)]


def scores() -> list[tuple[int, Path]]:
    """Return the scores of music21's corpus whose keys are major and minor."""
    spec = find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("pip install music21", name="music21")
    corpus = Path(spec.submodule_search_locations[0]) / "corpus"
    chosen: list[Path] = []
    for pattern, most in (
        ("bach/*.mxl", 32), ("ryansMammoth/*.abc", 28), ("haydn/**/*.mxl", 6),
        ("mozart/**/*.mxl", 6), ("beethoven/**/*.mxl", 6), ("schumann*/**/*.mxl", 4),
        ("joplin/*.mxl", 4), ("corelli/**/*.mxl", 4), ("handel/**/*.mxl", 4),
        ("chopin/*.mxl", 4), ("schubert/*.mxl", 4), ("leadSheet/*.mxl", 4),
    ):  # fmt: skip
        paths = sorted(corpus.glob(pattern))
        chosen += paths[:: max(1, len(paths) // most)][:most]
    return list(enumerate(chosen))


def _font(folder: Path, *, held: bool) -> Path:
    package, name = REPORT_FONT if held else FIT_FONT
    return folder / package / "usr" / "share" / "sounds" / "sf2" / name


def _keep(clip: arranged.Clip, into: Path, *, held: bool) -> Row:
    place = into / f"{clip.name}.flac"
    write(place, clip.samples, SAMPLE_RATE)
    row = _row(place, content="music", group="")
    row["split"] = "report" if held else "fit"
    row["bpm"] = f"{clip.bpm:g}" if clip.bpm else ""
    row["bpm_octave_ok"] = str(clip.octave_open).lower()
    row["key"] = clip.key or ""
    return row


def _row(place: Path, *, content: str, group: str) -> Row:
    """Return a clip's labels; clips of one recording fall on the same side."""
    held = zlib.crc32(group.encode()) % 4 == 3
    return {"path": str(place.absolute()), "bpm": "", "bpm_octave_ok": "", "key": "",
            "content": content, "split": "report" if held else "fit"}  # fmt: skip


def _telling(row: Row, split: str) -> bool:
    """Return whether a clip serves its list: music without labels teaches the gate, no more."""
    return split == "fit" or row["content"] != "music" or bool(row["bpm"] or row["key"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch, cut and render everything, and write both lists."""
    parser = argparse.ArgumentParser(prog="liner_server.evaluation.recordings", description=__doc__)
    parser.add_argument("--into", type=Path, required=True)
    folder: Path = parser.parse_args(arguments).into
    clips = folder / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    for package in ("mma", REPORT_FONT[0], FIT_FONT[0]):
        unpack(package, folder)
    arranged.index_grooves(folder / "mma" / "usr" / "share" / "mma")
    recordings = [(source, path) for source in SOURCES for path in found(source, folder)]
    rows: list[Row] = []
    for name, work, items in (
        ("recordings", partial(cut, into=clips), recordings),
        ("grooves", partial(groove, folder=folder, into=clips), [*ACCOMPANIMENTS, *HELD_OUT]),
        ("scores", partial(score, folder=folder, into=clips), scores()),
    ):
        for part in cached(folder, name, work, items):
            rows += part
    for split in ("fit", "report"):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(row for row in rows if row["split"] == split and _telling(row, split))


if __name__ == "__main__":
    main()
