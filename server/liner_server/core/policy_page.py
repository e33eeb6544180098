"""Writes docs/policy.md: `python -m liner_server.core.policy_page > docs/policy.md`."""

import sys

from liner.v1 import track_pb2

from liner_server.core.evidence import GIVEN_TRUST, TAG_TEXT_TRUST, TAG_TRUST
from liner_server.core.fields import FIELDS, Field, Kind
from liner_server.core.ledger import (
    CAPS,
    EVEN,
    PROPOSE_FROM,
    UNNAMED,
    UNNAMED_AKIN,
    UNNAMED_STRANGE,
)

_HEAD = """# The policy that picks values

Written by `python -m liner_server.core.policy_page`; a test fails when it is out of date.

Every source makes claims; `core/ledger.py` weighs them and decides field by field.

- **How confidences combine.** A source gives its probability to the value it states and what it
  says of rivals to them. Of what it leaves open any one other value gets {unnamed:g}; where a
  tempo or key comes without rivals, what is akin to it {akin:g} and anything else {strange:g}.
  Beliefs multiply over the sources and are scaled to one, with the case that nobody is right.
  A source that agrees with a surer one counts for {even:g} at least: agreement takes nothing away.
- **How far a number may go.** {caps}.
  A single fitted probability is passed on as it is; what was combined is a RULE, at most the
  greater of its cap and the best fitted number in it.
- **What happens to the value.** FILLED from `min_confidence` on or when exact, PROPOSED from
  {propose:g} on, ABSTAINED under it. A stated value is KEPT while it is the most probable; else
  the better one is PROPOSED, or CORRECTED: under WHEN_CONFIDENT from `min_confidence` on or when
  exact and never an identity field, under ALWAYS whenever it is more probable.

|field|who may decide|the same value|akin|stated|tag|identity|
|---|---|---|---|---|---|---|
"""

_SAME = {
    Kind.TEXT: "without case, accents and punctuation",
    Kind.CODE: "without case and punctuation",
    Kind.TEMPO: "within 4 %",
    Kind.KEY: "however spelled",
    Kind.SECONDS: "within 1 s or 1 %",
    Kind.LIST: "half of all names in both",
    Kind.ARTISTS: "without case, accents and punctuation",
    Kind.WARNING: "equal",
}
_AKIN = {Kind.TEMPO: "half, double, a quarter, four times", Kind.KEY: "the relative key"}


def page() -> str:
    """Return docs/policy.md: for each field who may decide it and what agreeing means."""
    names = track_pb2.ConfidenceBasis.Name
    head = _HEAD.format(
        unnamed=UNNAMED,
        akin=UNNAMED_AKIN,
        strange=UNNAMED_STRANGE,
        propose=PROPOSE_FROM,
        even=EVEN,
        caps=", ".join(f"{names(basis)[17:]} at most {cap:g}" for basis, cap in CAPS.items()),
    )
    return head + "".join(_row(field) for field in FIELDS.values())


def _row(field: Field) -> str:
    if field.path.startswith("properties."):
        who = "measured"
    elif field.decided_by_model:
        who = "any source"
    else:
        who = "any but a model alone"
    if field.kind is Kind.NUMBER:
        same = f"within {field.slack:g}" if field.slack else "equal"
    else:
        same = "the same entries" if field.whole else _SAME[field.kind]
    measured = field.path.startswith("properties.")
    tag = "-" if measured else f"{TAG_TRUST.get(field.kind, TAG_TEXT_TRUST):g}"
    cells = (
        field.path,
        who,
        same,
        _AKIN.get(field.kind, "-"),
        f"{GIVEN_TRUST.get(field.kind, 0.9):g}",
        tag,
        "yes" if field.identity else "-",
    )
    return f"|{'|'.join(cells)}|\n"


if __name__ == "__main__":
    sys.stdout.write(page())
