"""Writes docs/rules.md: `python -m liner_server.core.rules.page > docs/rules.md`."""

import sys
from collections.abc import Sequence

from liner.v1 import enrichment_pb2

from liner_server.core.enums import Profile, Severity
from liner_server.core.fields import FIELDS
from liner_server.core.rules.across_batch import RULE_IDS
from liner_server.core.rules.rule import Rule
from liner_server.core.validator import FAMILIES, MANDATORY, REQUIRED, SHARES

_HEAD = """# Rules

Written by `python -m liner_server.core.rules.page`; a test fails when it is out of date.

A broken ERROR leaves {error:g} of its family's score, a WARNING {warning:g}, an INFO all of it; a
rule counts once a track. The confidence is the product over all families: it ranks tracks by how
much the rules find wrong, and is no probability. Completeness stands beside it: a field that is
not stated is not wrong.

A rule that names a profile holds only for deliveries under it.

## completeness

`FIELD_MISSING` is raised for every field that the delivery profile needs and that is not stated.
Under ddex and apple it is an ERROR for {mandatory},
without which no DDEX message can be written, and a WARNING for the others; under minimal it is
always a WARNING: such a track may still be on its way.

|profile|needs|
|---|---|
"""


def page() -> str:
    """Return docs/rules.md: every rule with what it judges, how bad a breach is, and why."""
    head = _HEAD.format(
        mandatory=", ".join(path for path in FIELDS if path in MANDATORY),
        error=1 - SHARES[enrichment_pb2.SEVERITY_ERROR],
        warning=1 - SHARES[enrichment_pb2.SEVERITY_WARNING],
    )
    tables = [
        _table(family, [(r.rule_id, r.severity, r.field, r.source, _why(r)) for r in rules])
        for family, rules in FAMILIES.items()
    ]
    head += "".join(
        f"|{_profile(profile)}|{', '.join(paths)}|\n"
        for profile, paths in REQUIRED.items()
        if profile
    )
    return "\n".join([head, *tables, _table("across_batch", RULE_IDS)])


def _why(rule: Rule) -> str:
    if rule.profiles is None:
        return rule.why
    return f"{rule.why} Only under {', '.join(map(_profile, sorted(rule.profiles)))}."


def _profile(profile: Profile) -> str:
    return enrichment_pb2.DeliveryProfile.Name(profile)[17:].lower()


def _table(family: str, rows: Sequence[tuple[str, Severity, str, str, str]]) -> str:
    lines = [f"## {family}", "", "|rule|severity|field|source|why|", "|---|---|---|---|---|"]
    for rule_id, severity, field, source, why in rows:
        level = enrichment_pb2.Severity.Name(severity)[9:]
        lines.append(f"|`{rule_id}`|{level}|{field}|{source}|{why}|")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
