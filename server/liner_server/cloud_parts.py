"""What `liner-server setup-cloud` says of each thing that it looks after."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of what Google Cloud must hold, and what became of it."""

    kind: str
    path: str
    state: str
    """exists, created, changed; in a dry run: missing, differs."""
    note: str = ""
