"""Settings: wrong values are named, and nothing is open without authentication."""

import pytest
from liner_server.settings import SettingsError, is_loopback, load


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("LINER_GRPC_ADDRESS", "50051", "HOST:PORT"),
        ("LINER_GRPC_ADDRESS", "127.0.0.1:99999", "HOST:PORT"),
        ("LINER_LISTENING_PROCESSES", "many", "integer"),
        ("LINER_MAX_AUDIO_SECONDS", "0", "greater than 0"),
        ("LINER_LOG_FORMAT", "xml", "'json'"),
        ("PORT", "http", "integer"),
        ("ENABLE_BATCH_PROCESSING", "perhaps", "boolean"),
    ],
)
def test_a_wrong_value_names_its_variable_and_what_it_may_be(monkeypatch, variable, value, says):
    """At three in the morning the message is all the operator has."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as error:
        load()

    assert variable in str(error.value)
    assert says in str(error.value)
    assert value in str(error.value)


def test_a_setting_that_is_no_json_is_named(monkeypatch):
    """The library's own error for these is another one, and would end in a traceback."""
    monkeypatch.setenv("LINER_MODEL_PRICES", "{")

    with pytest.raises(SettingsError, match="LINER_MODEL_PRICES: is not JSON"):
        load()


@pytest.mark.parametrize(
    "variable", ["QWEN2_ENDPOINT", "LINER_OPENAI_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(monkeypatch, variable):
    """What is said about a wrong setting ends up in logs."""
    monkeypatch.setenv(variable, "http://user:can/ary@models:8080")

    with pytest.raises(SettingsError, match=f"{variable}.*it is 'http://\\*\\*\\*@models:8080'"):
        load()


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "LINER_QWEN2_API_KEY"])
@pytest.mark.parametrize("key", ["can ary", "can\nary", "canary\u200b"])
def test_a_key_that_fits_no_header_is_refused_and_not_repeated(monkeypatch, variable, key):
    """Sent as it is, every call would fail as if the model could not be reached."""
    monkeypatch.setenv(variable, key)

    with pytest.raises(SettingsError) as error:
        load()

    assert str(error.value).startswith(f"{variable}: holds a blank")
    assert "can" not in str(error.value).replace("cannot", "")


def test_the_line_break_at_the_end_of_a_key_is_dropped(monkeypatch):
    """Files and secret managers like to end in one."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary\n")

    key = load().openai_api_key

    assert key is not None
    assert key.get_secret_value() == "sk-canary"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LINER_GRPC_ADDRESS", "0.0.0.0:50051"),
        ("LINER_GRPC_ADDRESS", "[::]:50051"),
        ("LINER_GRPC_ADDRESS", "10.0.0.7:50051"),
        ("LINER_GRPC_ADDRESS", "example.com:50051"),
        ("LINER_HTTP_ADDRESS", "0.0.0.0:9090"),
        ("PORT", "8080"),
    ],
)
def test_a_public_address_without_tokens_is_refused(monkeypatch, tmp_path, variable, value):
    """Fail closed: no switch skips this, and the message says how to set it up."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=f"{variable}.*LINER_TOKENS_FILE"):
        load()
    monkeypatch.setenv("LINER_TOKENS_FILE", str(tmp_path / "tokens"))
    settings = load()

    assert settings.tokens_file is not None


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("localhost.example.com:1", False),
        ("2130706433:1", False),
    ],
)
def test_loopback_is_told_from_everything_else(address, local):
    """Odd spellings of an address count as public."""
    assert is_loopback(address) is local


def test_cloud_runs_port_wins(monkeypatch, tmp_path):
    """PORT is the platform's word; it listens on all addresses."""
    monkeypatch.setenv("PORT", "8080")
    monkeypatch.setenv("LINER_TOKENS_FILE", str(tmp_path / "tokens"))

    assert load().grpc_bind == "0.0.0.0:8080"
