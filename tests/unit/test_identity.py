"""Who may call what: tokens, roles, and the table of methods held against the contract."""

import hashlib
from pathlib import Path

import pytest
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from liner.v1 import enrichment_pb2, experiment_pb2, queue_admin_pb2, storage_pb2
from liner_server.errors import PermissionDeniedError, UnauthenticatedError
from liner_server.rpc.identity import (
    ROLE_OF_METHOD,
    TokenAuthenticator,
    authorise,
    new_token,
)
from liner_server.settings import SettingsError

_FILES = (
    enrichment_pb2,
    experiment_pb2,
    queue_admin_pb2,
    storage_pb2,
    health_pb2,
    reflection_pb2,
    channelz_pb2,
)


def test_the_table_names_every_method_of_every_service_and_no_other():
    """A method that is forgotten here would be refused to everyone but admins, unnoticed."""
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in _FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }

    assert methods == set(ROLE_OF_METHOD)


@pytest.fixture
def tokens(tmp_path: Path) -> tuple[TokenAuthenticator, str]:
    """An authenticator that knows one ingest token, and the token."""
    token, line = new_token("ingest", ["enrich", "objects.read"])
    path = tmp_path / "tokens"
    path.write_text(f"# who may call\n\n{line}\n")
    return TokenAuthenticator.from_file(path), token


def test_a_known_token_is_its_principal(tokens):
    """Name and roles come from the file; the token itself is stored nowhere."""
    authenticator, token = tokens

    principal = authenticator.principal_of([f"Bearer {token}"])

    assert principal.name == "ingest"
    authorise(principal, "/liner.v1.EnrichmentService/EnrichMetadata")
    for denied in (
        "/liner.v1.QueueAdmin/PurgeDeadLetters",
        "/liner.v1.StorageService/Delete",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/some.other.Service/Method",
    ):
        with pytest.raises(PermissionDeniedError):
            authorise(principal, denied)


@pytest.mark.parametrize(
    "shape",
    [
        "none",
        "two",
        "garbage",
        "basic",
        "empty",
        "wrong",
        "longer",
        "shorter",
        "huge",
        "hash",
    ],
)
def test_whatever_else_is_sent_is_refused_with_the_same_words(tokens, shape):
    """An attacker learns nothing from how the refusal is worded."""
    authenticator, token = tokens
    sent = {
        "none": [],
        "two": [f"Bearer {token}"] * 2,
        "garbage": ["\x00\xff"],
        "basic": ["Basic dXNlcjpwYXNz"],
        "empty": ["Bearer "],
        "wrong": ["Bearer " + "x" * 43],
        "longer": [f"Bearer {token}x"],
        "shorter": [f"Bearer {token[:-1]}"],
        "huge": ["Bearer " + "x" * 65_536],
        "hash": ["Bearer " + hashlib.sha256(token.encode()).hexdigest()],
    }[shape]

    with pytest.raises(UnauthenticatedError) as error:
        authenticator.principal_of(sent)

    assert str(error.value) == "valid credentials are required"


@pytest.mark.parametrize(
    "text",
    ["", "# only a comment\n", "secret-in-clear ingest enrich\n", f"{'a' * 64} ingest root\n"],
)
def test_a_tokens_file_that_says_nothing_clear_stops_the_start(tmp_path: Path, text: str):
    """A typo must not become an open door, or a closed one that nobody notices until morning."""
    path = tmp_path / "tokens"
    path.write_text(text)

    with pytest.raises(SettingsError, match="LINER_TOKENS_FILE"):
        TokenAuthenticator.from_file(path)


@pytest.mark.parametrize("prefix", ["a", "/", "a//b/", "/a/", "../a/", "a/./", "a,b/", "", ".a/ /"])
def test_what_is_no_folder_cannot_be_owned(tmp_path: Path, prefix):
    """`a` would take in `ab`, and a comma would be two prefixes."""
    with pytest.raises(ValueError, match="prefix"):
        new_token("label", ["objects.read"], [prefix])


def test_prefixes_come_from_the_file(tmp_path: Path):
    """Owned by one, barred to others, shared by those who both name it."""
    token_a, line_a = new_token("a", ["objects.read"], ["a/", "both/"])
    token_b, line_b = new_token("b", ["objects.read"], ["both/"])
    token_c, line_c = new_token("c", ["objects.read"])
    path = tmp_path / "tokens"
    path.write_text(f"{line_a}\n{line_b}\n{line_c}")
    tokens = TokenAuthenticator.from_file(path)

    may = {
        name: [
            p for p in ("a/x", "both/x", "c/x") if tokens.principal_of([f"Bearer {t}"]).may_use(p)
        ]
        for name, t in (("a", token_a), ("b", token_b), ("c", token_c))
    }

    assert may == {"a": ["a/x", "both/x"], "b": ["both/x"], "c": ["c/x"]}


def test_a_line_with_a_wrong_prefix_stops_the_start(tmp_path: Path):
    """A typing error must not open a catalogue to everybody."""
    _, line = new_token("a", ["objects.read"])
    path = tmp_path / "tokens"
    path.write_text(f"{line} label-a\n")

    with pytest.raises(SettingsError, match=r"line 1.*prefix"):
        TokenAuthenticator.from_file(path)
