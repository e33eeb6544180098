"""What is sent to Cloud Storage where its stand-in would take anything: signatures, lifecycle
rules, keys, the project that pays, preconditions.
"""

import base64
import datetime
import hashlib
import json
import random
import re
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import aiohttp
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from google.auth.credentials import Credentials
from liner.v1 import storage_pb2
from liner_server.core.retention import RetentionPolicy
from liner_server.errors import FailedPreconditionError, UnavailableError
from liner_server.objects import gcs_signing, gcs_upload
from liner_server.objects.gcs import GcsObjectStore
from liner_server.objects.gcs_bucket import Bucket
from liner_server.objects.gcs_setup import rules_of, set_up
from support.fake_gcs import shared_gcs
from support.google_keys import EMAIL, private_key, service_account

READ, WRITE = storage_pb2.SIGNED_URL_OPERATION_READ, storage_pb2.SIGNED_URL_OPERATION_WRITE


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[GcsObjectStore]:
    """A store on a fresh bucket, with a key to sign with."""
    fake = shared_gcs()
    opened = fake.store(fake.new_bucket(), tmp_path / "scratch")
    opened.bucket.credentials = service_account()
    async with opened:
        yield opened


async def put(
    store: GcsObjectStore, name: str, data: bytes, **spec: object
) -> storage_pb2.StoredObject:
    """Store an object in pieces of a megabyte."""
    async with store.upload(storage_pb2.UploadSpec(object_name=name, **spec)) as upload:
        for at in range(0, len(data), 1 << 20):
            await upload.append(data[at : at + (1 << 20)])
        return await upload.commit(storage_pb2.UploadFinish())


async def get(store: GcsObjectStore, name: str) -> bytes:
    """Read a whole object."""
    async with store.read(name) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])


async def sign(store: GcsObjectStore, name: str, operation: int, **fields: object) -> Any:
    """Return a signed URL and its headers."""
    request = storage_pb2.GetSignedURLRequest(
        object_name=name, operation=operation, expiry={"seconds": 60}, **fields
    )
    return await store.signed_url(request)


def accepts(method: str, url: str, headers: dict[str, str]) -> bool:
    """Whether Cloud Storage would take this, by its published rules for V4 signatures.

    https://cloud.google.com/storage/docs/authentication/canonical-requests
    """
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(query)
    if len(given) != len(query) or given.get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256":
        return False
    try:
        signature = bytes.fromhex(given.pop("X-Goog-Signature", ""))
        seconds = int(given["X-Goog-Expires"])
        began = datetime.datetime.strptime(given["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(
            tzinfo=datetime.UTC
        )
        names = given["X-Goog-SignedHeaders"].split(";")
        email, *scope = given["X-Goog-Credential"].split("/")
    except (KeyError, ValueError):
        return False
    now = datetime.datetime.now(datetime.UTC)
    if not (0 < seconds <= 604_800 and now < began + datetime.timedelta(seconds=seconds)):
        return False
    if email != EMAIL or scope != [f"{began:%Y%m%d}", "auto", "storage", "goog4_request"]:
        return False
    sent = {key.lower(): value for key, value in headers.items()} | {"host": parts.netloc}
    if any(name not in sent for name in names):
        return False
    canonical = "\n".join(
        [
            method,
            quote(unquote(parts.path), safe="/~"),
            "&".join(
                f"{quote(key, safe='~')}={quote(value, safe='~')}"
                for key, value in sorted(given.items())
            ),
            *(f"{name}:{sent[name]}" for name in names),
            "",
            ";".join(names),
            "UNSIGNED-PAYLOAD",
        ]
    )
    text = "\n".join(
        [
            "GOOG4-RSA-SHA256",
            given["X-Goog-Date"],
            "/".join(scope),
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    try:
        private_key().public_key().verify(
            signature, text.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
    except InvalidSignature:
        return False
    return True


async def test_a_signed_url_works_and_its_signature_is_right(store):
    """Read and written through the stand-in, and judged by the published rules."""
    await put(store, "in/é å.flac", b"data")

    read = await sign(store, "in/é å.flac", READ)
    write = await sign(store, "new", WRITE, content_type="audio/flac", max_size_bytes=100)

    assert accepts("GET", read.url, dict(read.headers))
    assert accepts("PUT", write.url, dict(write.headers))
    assert not accepts("PUT", read.url, dict(read.headers))
    assert dict(write.headers) == {
        "Content-Type": "audio/flac",
        "x-goog-content-length-range": "0,100",
        "x-goog-if-generation-match": "0",
    }
    async with aiohttp.ClientSession() as http:
        async with http.get(read.url) as response:
            assert await response.read() == b"data"
        async with http.put(write.url, data=b"song", headers=dict(write.headers)) as response:
            assert response.status == 200
    assert await get(store, "new") == b"song"


@pytest.mark.parametrize("operation", [READ, WRITE])
async def test_no_byte_of_it_can_be_changed(store, operation):
    """Host, path, every parameter, and what must be sent with it."""
    await put(store, "in/a.flac", b"data")
    signed = await sign(store, "in/a.flac", operation)
    method, headers = ("PUT" if operation == WRITE else "GET"), dict(signed.headers)
    rng = random.Random(5)
    start = len("http://")

    let_in = []
    for at in range(start, len(signed.url)):
        other = rng.choice([c for c in "0123456789abcdefXYZ%&=/" if c != signed.url[at]])
        changed = signed.url[:at] + other + signed.url[at + 1 :]
        # Hex in capitals and escapes in another way are the same address to Cloud Storage.
        if unquote(changed).lower() != unquote(signed.url).lower() and accepts(
            method, changed, headers
        ):
            let_in.append(changed)

    assert let_in == []
    assert accepts(method, signed.url, headers)
    for key in headers:
        assert not accepts(method, signed.url, headers | {key: "9"})


class _NoKey(Credentials):
    """Credentials of a machine on Google Cloud: a token and no key."""

    service_account_email = EMAIL

    def __init__(self) -> None:
        super().__init__()
        self.token = "token-of-the-machine"  # noqa: S105 - a word
        self.expiry = None

    def refresh(self, request: Any) -> None:
        """Never needed."""


class _Iam:
    """Plays IAM's signBlob with the test's key."""

    def __init__(self, status: int = 200) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._status = status

    def __call__(
        self, *, url: str, method: str, body: bytes, headers: dict[str, str], **_: Any
    ) -> Any:
        """Answer one request."""
        self.asked.append((url, dict(headers)))
        payload = base64.b64decode(json.loads(body)["payload"])
        signature = private_key().sign(payload, padding.PKCS1v15(), hashes.SHA256())
        answer = json.dumps({"signedBlob": base64.b64encode(signature).decode()})

        return SimpleNamespace(status=self._status, data=answer.encode(), headers={})


async def test_without_a_key_iam_signs(store, monkeypatch):
    """As on Cloud Run: one call to signBlob for the account, with the machine's own token."""
    iam = _Iam()
    monkeypatch.setattr(gcs_signing, "Request", lambda: iam)
    store.bucket.credentials = _NoKey()
    await put(store, "x", b"data")

    read = await sign(store, "x", READ)

    assert accepts("GET", read.url, {})
    [(url, headers)] = iam.asked
    assert url.endswith(f"/serviceAccounts/{EMAIL}:signBlob")
    assert headers["authorization"] == "Bearer token-of-the-machine"


async def test_where_nobody_can_sign_it_says_what_is_missing(store, monkeypatch):
    """FAILED_PRECONDITION names the setting; IAM's refusal is told as one."""
    await put(store, "x", b"data")
    store.bucket.credentials = None
    with pytest.raises(FailedPreconditionError) as nobody:
        await sign(store, "x", READ)
    monkeypatch.setattr(gcs_signing, "Request", lambda: _Iam(status=403))
    store.bucket.credentials = _NoKey()
    with pytest.raises((FailedPreconditionError, UnavailableError)) as refused:
        await sign(store, "x", READ)

    assert "LINER_GCS_SIGNING_ACCOUNT" in str(nobody.value)
    assert refused.value.reason.startswith("GCS")


async def test_many_parts_become_one_object_and_leave_none(store, monkeypatch):
    """Two rounds of composing, at a part size that makes so many of them cheap."""
    monkeypatch.setattr(gcs_upload, "PART_BYTES", 100)
    data = random.Random(3).randbytes(100 * 40 + 17)

    stored = await put(store, "x", data, metadata={"tier": "pro"}, upload_id="u")

    assert await get(store, "x") == data
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert dict(stored.metadata) == {"tier": "pro"}
    left = [o.object_name for o in await store.list(".liner/uploads/")]
    assert [name.rpartition("/")[2] for name in left] == ["state"]


async def test_what_another_process_began_is_gone_on_with(store, tmp_path, monkeypatch):
    """A process that dies loses what was not a part yet; the next one reads the others again."""
    monkeypatch.setattr(gcs_upload, "PART_BYTES", 100)
    data = random.Random(4).randbytes(1000)
    spec = storage_pb2.UploadSpec(object_name="x", upload_id="u")
    dying = store.upload(spec)
    upload = await dying.__aenter__()
    await upload.append(data[:450])
    await upload._settle()

    other = shared_gcs().store(store.bucket.name, tmp_path / "other")
    async with other:
        kept = (await other.query_upload("u")).persisted_size
        async with other.upload(spec) as rest:
            assert rest.offset == kept == 400
            await rest.append(data[kept:])
            stored = await rest.commit(storage_pb2.UploadFinish())

        assert stored.sha256 == hashlib.sha256(data).hexdigest()
        assert (await other.query_upload("u")).object == stored
    await dying.__aexit__(None, None, None)
    assert await get(store, "x") == data


def test_the_lifecycle_rules_are_those_of_the_policy():
    """A day slower than a clean-up, and nothing for what may not be deleted."""
    policy = RetentionPolicy(
        prefixes={"in/free/": "free", "gold/": "enterprise", "p/": "pro", "p/f/": "free"}
    )

    assert rules_of(policy) == [
        {"action": {"type": "Delete"}, "condition": {"age": days, "matchesPrefix": [prefix]}}
        for prefix, days in (("temp/", 2), ("in/free/", 31), ("p/f/", 31), (".liner/uploads/", 2))
    ]


class Recorder:
    """Plays the JSON API for one bucket, and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.rules: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if "multipart" in self.headers.get("Content-Type", ""):
                    match = re.search(rb"\{.*?\}\r\n", body, re.DOTALL)
                    sent = json.loads(match[0]) if match else {}
                else:
                    sent = json.loads(body or b"{}")
                outer.asked.append((self.command, self.path, sent))
                if "lifecycle" in sent:
                    outer.rules = sent["lifecycle"]["rule"]
                answer = {"name": "b", "lifecycle": {"rule": outer.rules}, "items": []}
                if self.path.startswith("/upload"):
                    answer = {"name": "x", "generation": "5", "size": "4", "crc32c": "rth90Q=="}
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recorder that listens."""
    opened = Recorder()
    yield opened
    opened.close()


async def test_setting_up_sends_our_rules_and_keeps_those_of_others(recorder):
    """And the second time there is nothing to do."""
    foreign = {"action": {"type": "Delete"}, "condition": {"age": 9, "matchesPrefix": ["theirs/"]}}
    stale = {"action": {"type": "Delete"}, "condition": {"age": 9, "matchesPrefix": ["temp/"]}}
    recorder.rules = [foreign, stale]
    policy = RetentionPolicy(prefixes={"in/": "free"})

    async def states(*, dry_run: bool) -> list[str]:
        bucket = Bucket("b", emulator=recorder.url)
        return [part.state async for part in set_up(bucket, policy, dry_run=dry_run)]

    dry = await states(dry_run=True)
    untouched = list(recorder.rules)
    done = await states(dry_run=False)
    again = await states(dry_run=False)

    assert dry == ["exists", "differs", "missing", "missing"]
    assert untouched == [foreign, stale]
    assert done == ["exists", "changed", "created", "created"]
    assert again == ["exists"] * 4
    assert recorder.rules == [foreign, *rules_of(policy)]


async def test_keys_payer_and_preconditions_are_sent(recorder, tmp_path):
    """What the stand-in takes no notice of must be in the request."""
    key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    bucket = Bucket("b", emulator=recorder.url, kms_key=key, user_project="payer")
    bucket.open()
    facts = storage_pb2.StoredObject(
        object_name="x", content_type="audio/flac", metadata={"tier": "free"}, sha256="ab"
    )
    facts.custom_time.FromSeconds(1_577_836_800)

    bucket.create(facts, b"data", if_generation_match=0)
    bucket.delete("x", 7)
    bucket.close()

    upload = next(asked for asked in recorder.asked if asked[1].startswith("/upload"))
    query = dict(parse_qsl(urlsplit(upload[1]).query))
    assert (query["ifGenerationMatch"], query["kmsKeyName"]) == ("0", key)
    assert query["userProject"] == "payer"
    assert upload[2]["crc32c"] == "rth90Q=="
    assert upload[2]["customTime"].startswith("2020-01-01T00:00:00")
    assert upload[2]["metadata"]["tier"] == "free"
    # The library looks at the bucket by itself, in a thread of its own, for its telemetry.
    ours = [asked for asked in recorder.asked if not asked[1].startswith("/storage/v1/b/b?")]
    method, path, _ = ours[-1]
    assert (method, dict(parse_qsl(urlsplit(path).query))["ifGenerationMatch"]) == ("DELETE", "7")
    assert [p for _, p, _ in ours if "userProject=payer" not in p] == []
