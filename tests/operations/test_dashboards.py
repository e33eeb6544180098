"""Dashboards ask queries that parse, and load where the provisioning looks for them."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.external import program
from support.monitoring import DASHBOARDS, ROOT, metrics_in, panel_queries

_GRAFANA = {"$__rate_interval": "5m", "$__range": "6h"}
"""What Grafana puts in, and a value it may have."""


def test_the_reader_finds_the_series_of_a_query() -> None:
    """A check that overlooks series proves nothing about them."""
    query = (
        'sum by (le, model) (rate(a_bucket{b="c_d{",e!="f"}[5m])) / on (x) group_left (y) '
        "max(g:h:i offset 5m) > 0.7 and bool_like == 1 or vector(0)"
    )

    assert metrics_in(query) == {"a_bucket", "g:h:i", "bool_like"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_parses(path: Path, tmp_path: Path) -> None:
    """Grafana shows an empty panel for a query with a typing error."""
    queries = panel_queries(path)
    assert queries
    filled = []
    for query in queries:
        for name, value in _GRAFANA.items():
            query = query.replace(name, value)
        assert "$" not in query
        filled.append(query)
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(filled)]
    (tmp_path / "panels.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]})
    )

    found = subprocess.run(
        [
            program("promtool", install="make tools, or put promtool on the PATH"),
            "check",
            "rules",
            "--lint=none",
            tmp_path / "panels.yml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_works_with_any_data_source(path: Path) -> None:
    """An id of somebody's own Prometheus shows nothing elsewhere; panels must not overlap."""
    board = json.loads(path.read_text())
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert board["uid"] == path.stem
    assert set(re.findall(r'"uid": "(.*?)"', path.read_text())) == {board["uid"], "${datasource}"}
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_provisioning_is_what_grafana_reads() -> None:
    """The two files of the provisioning name a Prometheus and a folder of dashboards."""
    provisioning = ROOT / "monitoring/grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    boards = yaml.safe_load((provisioning / "dashboards/liner.yml").read_text())

    assert sources["apiVersion"] == boards["apiVersion"] == 1
    assert [source["type"] for source in sources["datasources"]] == ["prometheus"]
    assert [provider["type"] for provider in boards["providers"]] == ["file"]
    assert len(DASHBOARDS) == 4
