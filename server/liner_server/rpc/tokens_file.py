"""The tokens file, followed while the server runs: a token that is revoked opens nothing more."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from liner_server.rpc.identity import TokenAuthenticator
from liner_server.watched_file import WatchedFile


class TokensFile(WatchedFile):
    """Who is known now.

        async with TokensFile(path) as tokens:
            tokens.current.principal_of(...)

    A file that cannot be used stops the start. Later it changes nothing: neither a slip nor a
    half-written file may open the server or shut everybody out, so a file without any token is
    not taken either.

    Raises:
        SettingsError: there is none, or it cannot be used.

    """

    kind = "tokens"
    most_bytes = 1 << 20

    def __init__(self, path: Path, *, interval: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(path, interval=interval)
        self._current = TokenAuthenticator.from_file(path)

    @property
    def current(self) -> TokenAuthenticator:
        """What knows callers by the file as it is in force; another object after each change."""
        return self._current

    def _take(self, data: bytes) -> None:
        self._current = TokenAuthenticator.parse(data)

    def _facts(self) -> dict[str, Any]:
        return {"tokens": len(self._current)}
