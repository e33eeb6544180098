""".env.example and the settings are the same list."""

import re
from pathlib import Path

import pytest
from liner_server.settings import Settings
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

_EXAMPLE = (Path(__file__).parents[2] / ".env.example").read_text()
_LINE = re.compile(r"^(?P<unset>#?)(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$", re.MULTILINE)


def _variable(name: str, field: FieldInfo) -> str:
    match field.validation_alias:
        case AliasChoices(choices=[str(first), *_]) | str(first):
            return first
        case _:
            return f"{Settings.model_config['env_prefix']}{name.upper()}"


_FIELDS = {_variable(name, field): field for name, field in Settings.model_fields.items()}
_STATED = {
    match["name"]: match["value"] for match in _LINE.finditer(_EXAMPLE) if not match["unset"]
}
_UNSET = {match["name"] for match in _LINE.finditer(_EXAMPLE) if match["unset"]}


def test_the_example_lists_every_setting_and_nothing_else() -> None:
    """A setting nobody can find is not one, and a listed one that is not read misleads."""
    assert sorted(match["name"] for match in _LINE.finditer(_EXAMPLE)) == sorted(_FIELDS)


def test_what_is_unset_by_default_is_shown_as_unset() -> None:
    """An example address or key must not become a value by copying the file."""
    assert {name for name, field in _FIELDS.items() if field.default is None} == _UNSET


def test_the_example_holds_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying the file unchanged must change nothing."""
    defaults = Settings()
    for name, value in _STATED.items():
        monkeypatch.setenv(name, value)

    stated = Settings()

    assert stated.model_fields_set, "the variables are read at all"
    assert stated == defaults
