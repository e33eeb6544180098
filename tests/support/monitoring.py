"""Reads alert rules and dashboards: which queries they ask, and which series those need."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring/prometheus"
DASHBOARDS = sorted((ROOT / "monitoring/grafana/dashboards").glob("*.json"))

_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})
_NOISE = re.compile(
    r"""
    "(?:[^"\\]|\\.)*"                                          # strings
    | \{[^}]*\}                                                # label matchers
    | \[[^\]]*\]                                               # ranges
    | \b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)  # labels
    """,
    re.VERBOSE,
)
_NAME = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()")


def rules() -> list[dict[str, Any]]:
    """Return every alert and recording rule."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Return the alerts."""
    return [rule for rule in rules() if "alert" in rule]


def panel_queries(path: Path) -> list[str]:
    """Return the queries of a dashboard's panels and annotations."""
    board = json.loads(path.read_text())
    panels = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [*panels, *(note["expr"] for note in board["annotations"]["list"])]


def metrics_in(query: str) -> set[str]:
    """Return the names of the series that a query asks for."""
    return set(_NAME.findall(_NOISE.sub(" ", query))) - _KEYWORDS
