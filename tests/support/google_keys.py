"""A service account whose key was made for the test run: it signs, and nobody trusts it."""

import functools
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.oauth2 import service_account as google_accounts

EMAIL = "signer@liner-test.iam.gserviceaccount.com"


@functools.cache
def private_key() -> rsa.RSAPrivateKey:
    """Return the key; making one takes a moment."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


@functools.cache
def service_account() -> Any:
    """Return credentials that hold the key."""
    pem = private_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return google_accounts.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        {
            "client_email": EMAIL,
            "private_key": pem.decode(),
            "token_uri": "http://127.0.0.1:9/token",
        }
    )
