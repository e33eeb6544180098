"""Alerts fire when they must and not otherwise, and each one leads to what to do."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.external import program
from support.monitoring import PROMETHEUS, ROOT, alerts

_NAMES = [alert["alert"] for alert in alerts()]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool beside the rules."""
    path = program("promtool", install="make tools, or put promtool on the PATH")
    return subprocess.run(
        [path, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [("rules", "rules.yml"), ("config", "prometheus.yml")])
def test_prometheus_takes_the_files(arguments: tuple[str, str]) -> None:
    """A rules file with one fault stops all alerts."""
    found = promtool("check", *arguments)

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("file", ["rules_test.yml", "rules_days_test.yml"])
def test_each_alert_fires_and_is_silent_as_promised(file: str) -> None:
    """Cases, labels and texts are in the file; promtool plays the series through the rules."""
    found = promtool("test", "rules", file)

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("name", _NAMES)
def test_each_alert_has_a_firing_and_a_silent_case(name: str) -> None:
    """An alert nobody saw fire is a hope, and one nobody saw silent is noise."""
    cases = [
        case
        for file in ("rules_test.yml", "rules_days_test.yml")
        for test in yaml.safe_load((PROMETHEUS / file).read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]

    assert any(case["exp_alerts"] for case in cases)
    assert any(not case["exp_alerts"] for case in cases)


@pytest.mark.parametrize("alert", alerts(), ids=_NAMES)
def test_each_alert_says_how_bad_it_is_and_leads_to_a_runbook(alert: dict) -> None:
    """Whoever is woken needs one link that works."""
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(
            r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE
        )
    }
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")

    assert alert["labels"]["severity"] in ("warning", "critical")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    assert path == "docs/operations.md"
    assert anchor == alert["alert"].lower()
    assert anchor in anchors


def test_low_confidence_is_the_rule_that_was_agreed() -> None:
    """Others rely on its name, its expression and its time."""
    [alert] = [alert for alert in alerts() if alert["alert"] == "LowConfidenceScore"]

    assert alert["expr"] == "avg_over_time(ai_confidence_score[5m]) < 0.7"
    assert alert["for"] == "5m"
    assert alert["labels"] == {"severity": "warning"}
    assert alert["annotations"]["summary"] == "Low AI confidence scores detected"
