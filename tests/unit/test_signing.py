"""Whose signature a signed URL bears, and under which names of one host it holds."""

from urllib.parse import urlsplit

import pytest
from liner_server.errors import PermissionDeniedError
from liner_server.objects.signing import SigningKeys, UrlSigner
from liner_server.ports import Grant


@pytest.mark.parametrize(
    ("base", "same", "other"),
    [
        ("http://liner.example.com", ["liner.example.com", "liner.example.com:80"], ":443"),
        ("http://liner.example.com:80", ["liner.example.com", "liner.example.com:80"], ":8"),
        ("https://liner.example.com:443", ["liner.example.com", "liner.example.com:443"], ":80"),
        ("https://[::1]", ["[::1]", "[::1]:443"], ":80"),
        ("http://127.0.0.1:9090", ["127.0.0.1:9090"], ""),
    ],
)
def test_a_port_that_goes_without_saying_may_be_said(tmp_path, base, same, other):
    """Clients leave a default port out of the Host header, however the URL was written."""
    signer = UrlSigner(SigningKeys(tmp_path / "keys"), now=lambda: 1000.0)
    signer.base_url = base
    url = signer.sign(Grant(name="a/song.wav", writes=False, expires=2000))
    target = url.removeprefix(base)
    for host in same:
        assert signer.check("GET", host, target).name == "a/song.wav"
    for host in (urlsplit(base).hostname + other, "evil.example.com"):
        with pytest.raises(PermissionDeniedError, match="not signed"):
            signer.check("GET", host, target)
