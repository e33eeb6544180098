"""Who calls, and what they may do: static bearer tokens and one table of roles.

Without a tokens file the server is bound to loopback (settings refuse anything else) and every
caller is the local principal with all roles.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from liner_server.context import Principal
from liner_server.errors import PermissionDeniedError, UnauthenticatedError
from liner_server.settings import SettingsError

LOCAL = Principal(name="local", roles=frozenset({"admin"}))
"""Whoever can reach a loopback server without authentication."""

NOBODY = Principal(name="nobody", roles=frozenset())
"""Whoever calls a method that is open to all."""

OPEN = ""
"""The role of methods that need none."""

_ENRICHMENT = "/liner.v1.EnrichmentService/"
_QUEUE = "/liner.v1.QueueAdmin/"
_STORAGE = "/liner.v1.StorageService/"
_EXPERIMENT = "/liner.v1.ExperimentAdmin/"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/"
_CHANNELZ = "/grpc.channelz.v1.Channelz/"

ROLE_OF_METHOD: Mapping[str, str] = {
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    _ENRICHMENT + "EnrichMetadata": "enrich",
    _ENRICHMENT + "ValidateMetadata": "enrich",
    _ENRICHMENT + "BatchProcess": "enrich",
    _ENRICHMENT + "SubmitEnrichment": "enrich",
    _ENRICHMENT + "GetEnrichment": "enrich",
    _ENRICHMENT + "ListEnrichments": "enrich",
    _ENRICHMENT + "ReviewEnrichment": "review",
    _ENRICHMENT + "ListModels": "enrich",
    _QUEUE + "GetStats": "queue.read",
    _QUEUE + "WatchStats": "queue.read",
    _QUEUE + "ListMessages": "queue.read",
    _QUEUE + "GetMessage": "queue.read",
    _QUEUE + "ListDeadLetters": "queue.read",
    _QUEUE + "PauseQueue": "queue.admin",
    _QUEUE + "ResumeQueue": "queue.admin",
    _QUEUE + "RetryMessage": "queue.admin",
    _QUEUE + "ReplayDeadLetters": "queue.admin",
    _QUEUE + "PurgeDeadLetters": "queue.admin",
    _STORAGE + "Upload": "objects.write",
    _STORAGE + "QueryUpload": "objects.write",
    _STORAGE + "Download": "objects.read",
    _STORAGE + "StatObject": "objects.read",
    _STORAGE + "ListObjects": "objects.read",
    _STORAGE + "GetSignedURL": "objects.read|objects.write",
    _STORAGE + "RunCleanup": "objects.admin",
    _STORAGE + "Delete": "objects.admin",
    _EXPERIMENT + "GetReport": "experiment.read",
    _EXPERIMENT + "ListExperiments": "experiment.read",
    _EXPERIMENT + "SetTraffic": "experiment.admin",
    _EXPERIMENT + "ReplayEnrichments": "experiment.admin",
    _REFLECTION + "ServerReflectionInfo": "operator",
    _CHANNELZ + "GetTopChannels": "operator",
    _CHANNELZ + "GetServers": "operator",
    _CHANNELZ + "GetServer": "operator",
    _CHANNELZ + "GetServerSockets": "operator",
    _CHANNELZ + "GetChannel": "operator",
    _CHANNELZ + "GetSubchannel": "operator",
    _CHANNELZ + "GetSocket": "operator",
}
"""The role each method needs; between | one of them. A method that is not here is refused to all
but admins; a test holds the table against the contract."""

ROLES = frozenset(role for roles in ROLE_OF_METHOD.values() for role in roles.split("|")) - {
    OPEN
} | {"admin"}
"""Every role that a token may carry."""

_PREFIX_FORM = "the beginning of object names up to a slash, such as label-a/, without a comma"

_LINE = re.compile(r"^([0-9a-f]{64})\s+([A-Za-z0-9._@-]{1,64})\s+([a-z.,]+)(?:\s+([^\s,]\S*))?$")


@dataclass(frozen=True, kw_only=True)
class _Entry:
    digest: bytes
    principal: Principal


class TokenAuthenticator:
    """Knows callers by the SHA-256 of their bearer token; no token itself is kept."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @classmethod
    def from_file(cls, path: Path) -> "TokenAuthenticator":
        """Read `SHA256 NAME ROLE,ROLE [PREFIX/,PREFIX/]` lines; blank ones and # comments are
        passed over. Prefixes are of object names: they belong to these principals alone.

        Raises:
            SettingsError: the file cannot be read or a line is wrong; the text says which.

        """
        try:
            return cls.parse(path.read_bytes())
        except OSError as error:
            raise SettingsError(f"LINER_TOKENS_FILE: {path} cannot be read: {error}") from error
        except ValueError as error:
            raise SettingsError(f"LINER_TOKENS_FILE: {path}: {error}") from error

    @classmethod
    def parse(cls, data: bytes) -> "TokenAuthenticator":
        """Read what a file holds; see `from_file`.

        Raises:
            ValueError: a line is wrong; the text says which, and nothing of what is in it.

        """
        try:
            lines = data.decode().splitlines()
        except UnicodeDecodeError:
            raise ValueError("it is not text in UTF-8") from None
        entries = [
            _entry(number, line)
            for number, line in enumerate(lines, 1)
            if line.strip() and not line.startswith("#")
        ]
        if not entries:
            raise ValueError("it holds no token")
        owned = {prefix for entry in entries for prefix in entry.principal.owns}
        return cls([_barred(entry, owned) for entry in entries])

    def principal_of(self, authorization: Sequence[str]) -> Principal:
        """Return who carries this `authorization` metadata.

        Raises:
            UnauthenticatedError: none, several, malformed or unknown; one text for all.

        """
        if len(authorization) != 1:
            raise UnauthenticatedError
        scheme, _, token = authorization[0].partition(" ")
        if scheme.lower() != "bearer" or not 16 <= len(token) <= 512:
            raise UnauthenticatedError
        digest = hashlib.sha256(token.encode()).digest()
        found: Principal | None = None
        # Every entry is compared, so that time tells nothing about which one matched.
        for entry in self._entries:
            if hmac.compare_digest(digest, entry.digest):
                found = entry.principal
        if found is None:
            raise UnauthenticatedError
        return found


def authorise(principal: Principal, method: str) -> None:
    """Let the principal pass if it may call this method.

    Raises:
        PermissionDeniedError: it may not.

    """
    role = ROLE_OF_METHOD.get(method, "admin")
    if role != OPEN and not any(map(principal.may, role.split("|"))):
        raise PermissionDeniedError.of_role(role.replace("|", " or "))


def new_token(name: str, roles: Sequence[str], prefixes: Sequence[str] = ()) -> tuple[str, str]:
    """Return a fresh token and the line that lets the tokens file know it.

    Raises:
        ValueError: the name, a role or a prefix cannot be used.

    """
    unknown = sorted(set(roles) - ROLES)
    if unknown or not roles:
        raise ValueError(f"roles are {', '.join(sorted(ROLES))}")
    token = secrets.token_urlsafe(32)
    line = f"{hashlib.sha256(token.encode()).hexdigest()} {name} {','.join(roles)}"
    if not _LINE.match(line):
        raise ValueError("a name is 1 to 64 letters, digits or any of . _ @ -")
    if prefixes:
        if not all(map(_is_prefix, prefixes)):
            raise ValueError(f"a prefix is {_PREFIX_FORM}")
        line += f" {','.join(prefixes)}"
    return token, line


def _entry(number: int, line: str) -> _Entry:
    match = _LINE.match(line.strip())
    roles = frozenset(match[3].split(",")) if match else frozenset()
    if match is None or not roles <= ROLES:
        raise ValueError(
            f"line {number} is not `SHA256 NAME ROLE,ROLE [PREFIX/]` with roles of "
            f"{', '.join(sorted(ROLES))}"
        )
    owns = tuple(match[4].split(",")) if match[4] else ()
    if not all(map(_is_prefix, owns)):
        raise ValueError(f"line {number}: a prefix is {_PREFIX_FORM}")
    return _Entry(
        digest=bytes.fromhex(match[1]),
        principal=Principal(name=match[2], roles=roles, owns=owns),
    )


def _barred(entry: _Entry, owned: Collection[str]) -> _Entry:
    """Keep a principal out of what is others' alone."""
    others = tuple(sorted(p for p in owned if p not in entry.principal.owns))
    return replace(entry, principal=replace(entry.principal, barred=others))


def _is_prefix(prefix: str) -> bool:
    """Whether it may be owned: a folder's name, so that `a/` does not take in `ab`."""
    *folders, last = prefix.split("/")
    return (
        bool(folders)
        and not last
        and all(f.strip(". ") == f != "" for f in folders)
        and "," not in prefix
    )
