"""The made-up catalogue as a user gets it: a list that says what is wrong with each row."""

import csv
import io
from pathlib import Path

from liner.v1 import enrichment_pb2
from liner_client.inputs import collect
from liner_server.__main__ import app
from liner_server.core.rules.across_batch import across_batch
from liner_server.core.rules.batch_memory import entry_of
from liner_server.core.validator import validate
from liner_server.evaluation.catalogue import clean
from liner_server.evaluation.catalogue_file import COLUMNS, write_catalogue
from liner_server.evaluation.faults import FAULTS
from typer.testing import CliRunner

_APPLE = enrichment_pb2.DELIVERY_PROFILE_APPLE
_NAME = "catalogue.csv"


def test_what_is_written_is_read_as_the_same_tracks(tmp_path: Path) -> None:
    """A column that loses something would hide faults or make new ones."""
    write_catalogue(tmp_path / _NAME, tracks=40, faults=False)

    entries = collect([str(tmp_path / _NAME)], stdin=io.StringIO())

    for seed, entry in enumerate(entries):
        expected = clean(seed)
        expected.ClearField("track_id")
        assert entry.track == expected


def test_each_row_says_which_rule_finds_its_fault(tmp_path: Path) -> None:
    """The list is the validator's proof in the hands of a user, faults across the batch too."""
    write_catalogue(tmp_path / _NAME, tracks=2 * len(FAULTS), faults=True)

    entries = collect([str(tmp_path / _NAME)], stdin=io.StringIO())

    found = [
        {issue.rule_id for issue in validate(entry.track, profile=_APPLE).issues}
        for entry in entries
    ]
    together = [entry_of(entry.item_id, entry.track, None) for entry in entries]
    for index, issue in across_batch(together):
        found[index].add(issue.rule_id)
    missed = [
        entry.item_id
        for entry, rule_ids in zip(entries, found, strict=True)
        if ": " in entry.item_id and entry.item_id.rpartition(": ")[2] not in rule_ids
    ]
    assert missed == []


def test_the_command_writes_the_documented_columns(tmp_path: Path) -> None:
    """docs/cli.md tells how to make one."""
    path = tmp_path / _NAME

    result = CliRunner().invoke(app, ["synth", "--catalogue", str(path), "--tracks", "3"])

    assert result.exit_code == 0
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(COLUMNS)
    assert len(rows) == 4


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    """Doing nothing in silence helps nobody."""
    assert CliRunner().invoke(app, ["synth"]).exit_code == 2
    missing = tmp_path / "no" / _NAME
    assert CliRunner().invoke(app, ["synth", "--catalogue", str(missing)]).exit_code == 2
