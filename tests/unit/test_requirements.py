"""The locks agree with each other and with pyproject.toml, and serve behind any mirror."""

import re
import tomllib
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_LOCKS = sorted((_ROOT / "requirements").glob("*.txt"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(lock: str) -> set[tuple[str, str]]:
    text = (_ROOT / "requirements" / lock).read_text()
    return {
        (_normal(name), version)
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    }


@pytest.mark.parametrize("lock", _LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_host(lock: Path) -> None:
    """An address in a lock breaks it wherever packages come from a mirror."""
    assert not re.search(r"://|--index-url|--find-links", lock.read_text())


@pytest.mark.parametrize("lock", _LOCKS, ids=lambda path: path.name)
def test_every_pin_has_a_hash(lock: Path) -> None:
    """One package without a hash and pip refuses the whole file."""
    blocks = re.split(r"^(?=[\w.-]+==)", lock.read_text(), flags=re.MULTILINE)[1:]

    assert blocks
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("part", ["server.txt", "build.txt"])
def test_what_is_shipped_is_what_was_tested(part: str) -> None:
    """The image must run the versions that the tests ran with."""
    assert _pins(part) <= _pins("dev.txt")


def test_every_declared_dependency_is_locked() -> None:
    """A dependency added to pyproject.toml without `make lock` would be absent after set-up."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    declared = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *(name for group in groups.values() for name in group if isinstance(name, str)),
    ]
    names = {_normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in declared}

    locked = {name for lock in _LOCKS for name, _ in _pins(lock.name)}

    assert names - {"liner"} - locked == set()
