"""Writes docs/rules.md: `python -m liner_server.core.rules.page > docs/rules.md`."""

import sys
from collections.abc import Sequence

from liner.v1 import enrichment_pb2

from liner_server.core.enums import Severity
from liner_server.core.rules.across_batch import RULE_IDS
from liner_server.core.validator import FAMILIES, SHARES

_HEAD = """# Rules

Written by `python -m liner_server.core.rules.page`; a test fails when it is out of date.

A broken ERROR leaves {error:g} of its family's score, a WARNING {warning:g}, an INFO all of it; a
rule counts once a track. The confidence is the product over the families. Completeness stands
beside it: a field that is not stated is not wrong.

`FIELD_MISSING` is raised for every field that the delivery profile needs and that is not stated.
"""


def page() -> str:
    """Return docs/rules.md: every rule with what it judges, how bad a breach is, and why."""
    head = _HEAD.format(
        error=1 - SHARES[enrichment_pb2.SEVERITY_ERROR],
        warning=1 - SHARES[enrichment_pb2.SEVERITY_WARNING],
    )
    tables = [
        _table(family, [(r.rule_id, r.severity, r.field, r.source, r.why) for r in rules])
        for family, rules in FAMILIES.items()
    ]
    return "\n".join([head, *tables, _table("across_batch", RULE_IDS)])


def _table(family: str, rows: Sequence[tuple[str, Severity, str, str, str]]) -> str:
    lines = [f"## {family}", "", "|rule|severity|field|source|why|", "|---|---|---|---|---|"]
    for rule_id, severity, field, source, why in rows:
        level = enrichment_pb2.Severity.Name(severity)[9:]
        lines.append(f"|`{rule_id}`|{level}|{field}|{source}|{why}|")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
