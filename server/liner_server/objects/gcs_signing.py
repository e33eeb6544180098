"""Signed URLs of Cloud Storage (V4): with the key of the credentials, or through IAM's signBlob."""

from datetime import timedelta
from typing import Any

from google.auth import credentials as auth_credentials
from google.auth import iam
from google.auth.transport.requests import Request
from liner.v1 import storage_pb2

from liner_server.errors import FailedPreconditionError
from liner_server.objects.gcs_bucket import Bucket


class IamSigner(auth_credentials.Signing):
    """Signs as a service account by asking IAM: no key is anywhere near. One call a signature.

    The account that asks needs roles/iam.serviceAccountTokenCreator on the one that signs, also
    where both are the same.
    """

    def __init__(self, credentials: Any, account: str, request: Any) -> None:
        self._signer = iam.Signer(request, credentials, account)  # type: ignore[no-untyped-call]
        self._account = account

    @property
    def signer_email(self) -> str:
        """Whose signature it is."""
        return self._account

    @property
    def signer(self) -> iam.Signer:
        """What signs."""
        return self._signer

    def sign_bytes(self, message: bytes) -> bytes:
        """Return the signature."""
        signature: bytes = self._signer.sign(message)
        return signature


def signer_of(bucket: Bucket, request: Any = None) -> Any:
    """Return credentials that can sign.

    Raises:
        FailedPreconditionError: there are none, and no account that IAM could sign for.

    """
    credentials = bucket.credentials
    account = bucket.signing_account
    if isinstance(credentials, auth_credentials.Signing) and account in (
        None,
        credentials.signer_email,
    ):
        # Those of Compute Engine sign too, through IAM, once they know whose they are.
        return credentials
    account = account or getattr(credentials, "service_account_email", None)
    if credentials is None or not account or account == "default":
        raise FailedPreconditionError(
            "these credentials hold no key to sign with; LINER_GCS_SIGNING_ACCOUNT names a service "
            "account for which IAM signs",
            reason="NO_SIGNER",
        )
    return IamSigner(credentials, account, request or Request())


def signed_url(
    bucket: Bucket, request: storage_pb2.GetSignedURLRequest, generation: int, max_bytes: int
) -> storage_pb2.GetSignedURLResponse:
    """Return a URL for the object, which for writing replaces this generation only.

    Raises:
        FailedPreconditionError: there is nothing to sign with.
        UnavailableError: IAM cannot be reached.

    """
    writes = request.operation == storage_pb2.SIGNED_URL_OPERATION_WRITE
    lasts: timedelta = request.expiry.ToTimedelta()
    headers: dict[str, str] = {}
    if writes:
        most = min(request.max_size_bytes or max_bytes, max_bytes)
        headers["x-goog-content-length-range"] = f"0,{most}"
        headers["x-goog-if-generation-match"] = str(generation)
        if bucket.kms_key:
            headers["x-goog-encryption-kms-key-name"] = bucket.kms_key
    # A copy: signing adds the host to it, which every client sends by itself.
    options: dict[str, Any] = {"headers": dict(headers)}
    if writes and request.content_type:
        options["content_type"] = request.content_type
    if not writes:
        options["response_disposition"] = "attachment"
    if bucket.user_project:
        options["query_parameters"] = {"userProject": bucket.user_project}
    response = storage_pb2.GetSignedURLResponse()
    response.expire_time.GetCurrentTime()
    response.url = bucket.sign(
        request.object_name,
        expiration=lasts,
        method="PUT" if writes else "GET",
        credentials=signer_of(bucket),
        **options,
    )
    response.headers.update(headers)
    if writes and request.content_type:
        response.headers["Content-Type"] = request.content_type
    response.expire_time.FromDatetime(response.expire_time.ToDatetime() + lasts)
    return response
