"""Which part may know which, read from the source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

_ADAPTERS = ("models", "queues", "objects", "results", "analytics")
_COMPOSITION_ROOT = "liner_server.app"
_COMMANDS = "liner_server.commands"
_READS_ENVIRONMENT = "liner_server.settings"
_IO_LIBRARIES = (
    "aiohttp",
    "av",
    "google.cloud",
    "grpc",
    "httpx2",
    "openai",
    "sqlite3",
    "subprocess",
    "urllib.request",
)
"""What `core` must not know: with any of these a decision could wait for the outside."""


@dataclass(frozen=True)
class Module:
    """One source file, and the dotted names it imports."""

    name: str
    imports: frozenset[str]
    tree: ast.Module


def _read(root: Path, path: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    package = parts[:-1]
    name = ".".join(package if parts[-1] == "__init__" else parts)
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return Module(name, frozenset(_imported(tree, package)), tree)


def _imported(tree: ast.Module, package: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *filter(None, [node.module])))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _modules(source_root: str) -> list[Module]:
    root = _ROOT / source_root
    return [_read(root, path) for path in sorted(root.rglob("*.py"))]


_SERVER = _modules("server")
_CLIENTS = _modules("clients")


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _breaches(modules: list[Module], who: str, *forbidden: str) -> list[str]:
    return [
        f"{module.name} imports {imported}"
        for module in modules
        if _within(module.name, who)
        for imported in sorted(module.imports)
        if any(_within(imported, target) for target in forbidden)
    ]


def test_the_reader_sees_every_kind_of_import(tmp_path: Path) -> None:
    """A rule that overlooks one way of importing protects nothing."""
    path = tmp_path / "server" / "core" / "router.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import grpc.aio\n"
        "from ..models import openai\n"
        "from . import retry\n"
        "def late():\n    from server import app as root\n"
    )

    module = _read(tmp_path, path)

    assert module.name == "server.core.router"
    assert module.imports == {"grpc.aio", "server.models.openai", "server.core.retry", "server.app"}


def test_the_source_is_found() -> None:
    """Rules over an empty list of files would all hold."""
    assert {"liner_server.core", "liner_server.audio"} <= {module.name for module in _SERVER}
    assert "liner_client" in {module.name for module in _CLIENTS}


@pytest.mark.parametrize("adapter", _ADAPTERS)
def test_only_the_composition_root_knows_an_adapter(adapter: str) -> None:
    """Core, audio, rpc and every other adapter work with any backend, so they know none."""
    package = f"liner_server.{adapter}"
    outside = [
        module
        for module in _SERVER
        if not _within(module.name, package) and not _within(module.name, _COMPOSITION_ROOT)
    ]

    assert _breaches(outside, "liner_server", package) == []


def test_nothing_below_knows_the_composition_root() -> None:
    """Whoever imports what builds everything depends on everything."""
    below = [
        m
        for m in _SERVER
        if not any(_within(m.name, above) for above in (_COMPOSITION_ROOT, _COMMANDS))
    ]

    assert _breaches(below, "liner_server", _COMPOSITION_ROOT) == []


def test_decisions_do_no_input_or_output() -> None:
    """The core is called from an RPC, a stream and a queue: it knows none of the three."""
    assert _breaches(_SERVER, "liner_server.core", "liner_server.rpc", *_IO_LIBRARIES) == []


def test_listening_knows_nothing_of_the_service() -> None:
    """Arrays in, numbers and doubts out: it runs in processes that hold nothing else."""
    forbidden = ("liner_server.core", "liner_server.rpc", "liner_server.settings", "grpc")

    assert _breaches(_SERVER, "liner_server.audio", *forbidden) == []


@pytest.mark.parametrize("adapter", _ADAPTERS)
def test_an_adapter_does_not_know_how_it_is_called(adapter: str) -> None:
    """Adapters serve the ports; the transport above them may change."""
    assert _breaches(_SERVER, f"liner_server.{adapter}", "liner_server.rpc") == []


def test_server_and_client_do_not_import_each_other() -> None:
    """They meet on the wire only, so that either can be deployed without the other."""
    assert _breaches(_SERVER, "liner_server", "liner_client") == []
    assert _breaches(_CLIENTS, "liner_client", "liner_server") == []


def test_the_environment_is_read_in_one_place() -> None:
    """A setting read elsewhere is one that `.env.example` does not list."""
    readers = {
        module.name
        for module in [*_SERVER, *_CLIENTS]
        if any(_within(name, f"os.{part}") for name in module.imports for part in _ENVIRONMENT)
        or any(_reads_environment(node) for node in ast.walk(module.tree))
    }

    assert readers - {_READS_ENVIRONMENT} == set()


_ENVIRONMENT = ("environ", "environb", "getenv", "getenvb", "putenv")


def _reads_environment(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in _ENVIRONMENT
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    )
