"""Signed URLs of the local backend: what may be done, with which object, until when.

    http://HOST/objects/NAME?op=read&expires=SECONDS&kid=KEY&sig=HEX
    http://HOST/objects/NAME?op=write&type=HEX&max=BYTES&gen=GENERATION&expires=...&kid=...&sig=...

The signature is an HMAC-SHA256 over method, host and the whole address before `&sig=`, byte for
byte: nothing is decoded before it is compared, so no second spelling of an address is valid.
"""

import hashlib
import hmac
import os
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from liner_server.errors import (
    FailedPreconditionError,
    InvalidRequestError,
    PermissionDeniedError,
)
from liner_server.ports import SIGNED_PATH, Grant

MAX_SECONDS = 7 * 24 * 3600
_SKEW_SECONDS = 15 * 60
_METHODS = {"read": "GET", "write": "PUT"}
_LINE = re.compile(r"^([A-Za-z0-9]{1,32}) ([0-9a-f]{64})$")
_SIGNATURE = "&sig="
_UNQUOTED = "/!$&'()*,;=@"
"""What some clients write plain in a path, whatever they were given."""


class SigningKeys:
    """The keys in a file, the newest first: `KID SECRET`, one a line, made if it is missing.

    The first signs and all verify, so a key is rotated by putting another before it and taken
    back by deleting its line. A change of the file is seen at the next call.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, bytes] = {}

    def newest(self) -> tuple[str, bytes]:
        """Return the key that signs.

        Raises:
            FailedPreconditionError: the file cannot be read, written or understood.

        """
        return next(iter(self._current().items()))

    def get(self, kid: str) -> bytes | None:
        """Return a key by its id, or None."""
        return self._current().get(kid)

    def rotate(self, *, keep: int) -> str:
        """Put a new key first, keep so many older ones, and return its id."""
        with self._lock:
            old = list(self._read().items()) if self._path.exists() else []
            kid = secrets.token_hex(4)
            self._write([(kid, secrets.token_bytes(32)), *old[:keep]])
        return kid

    def _current(self) -> dict[str, bytes]:
        with self._lock:
            try:
                stat = self._path.stat()
            except FileNotFoundError:
                self._write([(secrets.token_hex(4), secrets.token_bytes(32))], only_if_missing=True)
                stat = self._path.stat()
            except OSError as error:
                raise self._unusable(error) from error
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._keys = self._read()
                self._seen = seen
            return self._keys

    def _read(self) -> dict[str, bytes]:
        try:
            lines = self._path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(error) from error
        found = [_LINE.match(line) for line in lines if line and not line.startswith("#")]
        keys = {match[1]: bytes.fromhex(match[2]) for match in found if match}
        if not keys or len(keys) != len(found):
            raise self._unusable("a line is not `KID SECRET`, an id comes twice, or there is none")
        return keys

    def _write(self, keys: list[tuple[str, bytes]], *, only_if_missing: bool = False) -> None:
        text = "".join(f"{kid} {secret.hex()}\n" for kid, secret in keys)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Readable by its owner only from the first byte on, and whole or not there.
            handle, fresh = tempfile.mkstemp(dir=self._path.parent, prefix=".keys-")
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                if only_if_missing:
                    # Whoever came first wins: two starts at once must not sign with two keys.
                    try:
                        os.link(fresh, self._path)
                    except FileExistsError:
                        return
                else:
                    Path(fresh).replace(self._path)
            finally:
                Path(fresh).unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, why: object) -> FailedPreconditionError:
        return FailedPreconditionError(
            f"the signing keys in {self._path.name} cannot be used: {why}", reason="SIGNING_KEYS"
        )


class UrlSigner:
    """Makes and checks signed URLs below one base address."""

    def __init__(self, keys: SigningKeys, *, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._now = now
        self.base_url = ""
        """Where the side port is reached, such as http://127.0.0.1:9090, in lower case and without
        a path; known once it listens."""

    def sign(self, grant: Grant) -> str:
        """Return the URL of a grant."""
        if not self.base_url:
            raise FailedPreconditionError(
                "no address is known under which others reach the side port", reason="NO_PUBLIC_URL"
            )
        kid, key = self._keys.newest()
        query = {"op": "write" if grant.writes else "read"}
        if grant.writes:
            query |= {
                # In hex, so that no client finds something to quote in another way.
                "type": grant.content_type.encode().hex(),
                "max": str(grant.max_bytes),
                "gen": str(grant.generation),
            }
        query |= {"expires": str(grant.expires), "kid": kid}
        target = f"{SIGNED_PATH}{quote(grant.name, safe=_UNQUOTED)}?{urlencode(query)}"
        signature = self._signature(key, _METHODS[query["op"]], target)
        return f"{self.base_url}{target}{_SIGNATURE}{signature}"

    def check(self, method: str, host: str, target: str) -> Grant:
        """Return what a request may do, from its method, Host header and address as they came.

        Raises:
            PermissionDeniedError: not signed by us (URL_SIGNATURE) or too old (URL_EXPIRED).
            InvalidRequestError: rightly signed, for another method (URL_METHOD).

        """
        signed, mark, signature = target.rpartition(_SIGNATURE)
        path, _, asked = signed.partition("?")
        query = dict(parse_qsl(asked, keep_blank_values=True))
        key = self._keys.get(query.get("kid", ""))
        expected = _METHODS.get(query.get("op", ""), "")
        right = self._signature(key or bytes(32), expected, signed)
        # Compared as bytes: text that is not ASCII would raise.
        matches = hmac.compare_digest(right.encode(), signature.encode("utf-8", "surrogatepass"))
        if not (mark and key and expected and matches and self._named(host) == self._host):
            raise _refused("this address was not signed by this server", "URL_SIGNATURE")
        expires = int(query["expires"])
        if not self._now() < expires <= self._now() + MAX_SECONDS + _SKEW_SECONDS:
            raise _refused("this address is no longer valid", "URL_EXPIRED")
        if method != expected and (method, expected) != ("HEAD", "GET"):
            raise InvalidRequestError.of("method", f"this address is for {expected}", "URL_METHOD")
        return Grant(
            name=unquote(path[len(SIGNED_PATH) :]),
            writes=expected == "PUT",
            expires=expires,
            content_type=bytes.fromhex(query.get("type", "")).decode(),
            max_bytes=int(query.get("max", 0)),
            generation=int(query.get("gen", 0)),
        )

    @property
    def _host(self) -> str:
        return self._named(urlsplit(self.base_url).netloc)

    def _named(self, host: str) -> str:
        """Return a host without the port that clients leave out because it goes without saying."""
        return host.removesuffix(":443" if self.base_url.startswith("https:") else ":80")

    def _signature(self, key: bytes, method: str, target: str) -> str:
        text = f"liner1\n{method}\n{self._host}\n{target}"
        data = text.encode("utf-8", "surrogatepass")
        return hmac.new(key, data, hashlib.sha256).hexdigest()


def _refused(message: str, reason: str) -> PermissionDeniedError:
    return PermissionDeniedError(message, reason=reason)
