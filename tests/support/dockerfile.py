"""Runs a Dockerfile's steps in a folder, for machines without an engine to build images with.

Knows what ours uses: ARG before FROM, FROM, WORKDIR, ENV, RUN, COPY and COPY --from. Paths of the
image become paths below the folder, both in commands and in what is copied. The base image is the
machine itself, with a Python of its own as `python`.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

_ABSOLUTE = re.compile(r"(?<![\w./-])(/opt/liner|/var/lib/liner|/src)\b")
"""The paths of the image that are not the base's own."""


@dataclass(kw_only=True)
class Image:
    """What came of the last stage."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    """The RUN lines of all stages, as they were run."""


def instructions(text: str) -> list[tuple[str, str]]:
    """Return name and arguments of each instruction, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), rest.strip()) for name, rest in found]


def build(source: Path, folder: Path, python: Path) -> Image:
    """Run the Dockerfile of `source` and return the image's stand-in.

    Raises:
        CalledProcessError: a RUN line failed.

    """
    tools = folder / "tools"
    tools.mkdir(parents=True)
    (tools / "python").symlink_to(python)
    root = folder / "root"
    stages: dict[str, Path] = {}
    image, workdir, name, ran = Image(root=root), root, "", []
    for instruction, rest in instructions((source / "Dockerfile").read_text()):
        match instruction:
            case "FROM":
                if root.exists():
                    # Scripts know where they were installed, so each stage is built in one place.
                    stages[name] = root.rename(folder / f"stage-{name}")
                name = rest.partition(" AS ")[2]
                root.mkdir()
                image, workdir = Image(root=root), root
            case "WORKDIR":
                workdir = root / rest.lstrip("/")
                workdir.mkdir(parents=True, exist_ok=True)
            case "ENV":
                image.env.update(
                    (key, _inside(value, root)) for key, value in re.findall(r"(\w+)=(\S+)", rest)
                )
            case "RUN":
                line = _inside(rest, root)
                environment = {
                    **os.environ,
                    **{k: os.path.expandvars(v) for k, v in image.env.items()},
                    "PIP_QUIET": "1",
                    "PATH": f"{tools}:{root}/opt/liner/bin:{os.environ['PATH']}",
                }
                subprocess.run(["sh", "-ec", line], cwd=workdir, env=environment, check=True)
                ran.append(line)
            case "COPY":
                *sources, target = rest.split()
                origin, sources = _origin(sources, stages, source)
                for path in sources:
                    _copy(origin / path.lstrip("/"), workdir, target, root, source)
            case "USER":
                image.user = rest
            case "CMD":
                image.command = _exec_form(rest)
            case "HEALTHCHECK":
                image.health = _exec_form(rest.partition("CMD")[2])
    image.ran = ran
    return image


def _inside(text: str, root: Path) -> str:
    return _ABSOLUTE.sub(lambda found: f"{root}{found[0]}", text)


def _exec_form(text: str) -> list[str]:
    words = re.findall(r'"([^"]*)"', text)
    assert text.strip().startswith("["), f"no exec form: {text}"
    return words


def _origin(sources: list[str], stages: dict[str, Path], source: Path) -> tuple[Path, list[str]]:
    if sources[0].startswith("--from="):
        return stages[sources[0].removeprefix("--from=")], sources[1:]
    return source, sources


def _copy(origin: Path, workdir: Path, target: str, root: Path, source: Path) -> None:
    to = root / target.lstrip("/") if target.startswith("/") else workdir / target
    if origin.is_dir():
        shutil.copytree(origin, to, symlinks=True, dirs_exist_ok=True, ignore=_ignored(source))
        return
    assert not _is_ignored(origin, source), f".dockerignore keeps {origin} out of the context"
    to = to / origin.name if target.endswith("/") else to
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(origin, to)


def _ignored(source: Path):  # type: ignore[no-untyped-def]
    def ignore(folder: str, entries: list[str]) -> list[str]:
        return [entry for entry in entries if _is_ignored(Path(folder) / entry, source)]

    return ignore


def _is_ignored(path: Path, source: Path) -> bool:
    """Whether .dockerignore keeps a file of the context out; the last line that fits decides."""
    try:
        name = path.relative_to(source).as_posix()
    except ValueError:
        return False
    ignored = False
    for line in (source / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        fits = (
            fnmatch(path.name, pattern.removeprefix("**/"))
            if pattern.startswith("**/")
            else fnmatch(name, pattern) or name.startswith(f"{pattern}/")
        )
        if fits:
            ignored = not line.strip().startswith("!")
    return ignored
