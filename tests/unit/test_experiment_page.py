"""The page of a report: whole, safe, and right where there is little to show."""

import io
import re
from xml.etree import ElementTree

import pytest
from liner.v1 import experiment_pb2
from liner_client.experiment_commands import amount, report_block
from liner_client.experiment_page import page, usd
from liner_client.render import console
from rich.console import Console

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def report(name: str = "e") -> experiment_pb2.GetReportResponse:
    """Return a report with something in every part of it."""
    said = experiment_pb2.GetReportResponse(
        verdict=experiment_pb2.EXPERIMENT_VERDICT_ADOPT,
        verdict_reason=f"because {name}",
        deciding_metric="accept_rate",
    )
    said.experiment.experiment_name = name
    said.experiment.stop_reason = name
    for variant in ("control", name):
        said.experiment.variants.add(variant=variant, model=variant, traffic=0.5)
        one = said.variants.add(variant=variant, tracks=10, cost_usd_per_track=0.00012)
        one.accept_rate = 0.5
        one.confidence_histogram.extend([0] * 10 + [5] * 10)
        one.reliability.add(mean_confidence=0.8, accept_rate=0.7, fields=10)
    for second in range(3):
        point = said.trend.add()
        point.time.FromSeconds(1_700_000_000 + second)
        point.difference.variant = name
        point.difference.metric = "accept_rate"
        point.difference.upper = 0.1
        point.difference.lower = -0.2
    said.differences.add(variant=name, metric="cost", estimate=-0.1, lower=-0.2, upper=0.1)
    return said


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """It is mailed around and opened years later."""
    made = page(report())

    assert not re.search(r"https?:|<script|<link|@import|url\(|src=", made)
    assert made.count("<svg") == 4
    for picture in re.findall(r"<svg.*?</svg>", made, re.DOTALL):
        ElementTree.fromstring(picture)  # noqa: S314 - made here


def test_no_name_can_break_out_of_the_page() -> None:
    """Variants and reasons are texts of people."""
    made = page(report(EVIL))

    assert "<script" not in made
    assert "<img" not in made
    assert "alert(1)" in made


@pytest.mark.parametrize("points", [0, 1])
def test_an_empty_report_is_a_page_too(points: int) -> None:
    """The first look comes before the first track."""
    said = experiment_pb2.GetReportResponse()
    for _ in range(points):
        said.variants.add(variant="control")
        said.experiment.variants.add(variant="control")
        said.trend.add().difference.variant = "control"

    if not points:
        said.variants.add(variant="control")
        said.experiment.variants.add(variant="control")

    assert "Variants" in page(said)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_shows_every_number_whole(width: int) -> None:
    """A number whose end is cut off is another number; of a bar the end may go."""
    screen = Console(width=width, record=True, file=io.StringIO())

    screen.print(report_block(report("tried")))

    shown = screen.export_text()
    assert max(map(len, shown.splitlines())) <= width
    assert " 50.0 % █" in shown
    assert "…" not in shown


def test_the_terminal_shows_verdict_and_difference(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever has no browser at hand sees the same."""
    console().print(report_block(report()))

    shown = capsys.readouterr().out
    assert "adopt" in shown
    assert "because e" in shown
    assert "-$0.100" in shown


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "$0.00"), (1.5, "$1.50"), (0.0000123456, "$0.0000123"), (-0.5, "$0.500")],
)
def test_small_amounts_keep_their_digits(value: float, told: str) -> None:
    """A track costs a few millionths: two decimals would call everything free."""
    assert usd(value) == told


def test_amounts_have_their_units() -> None:
    """Points, seconds and dollars must not be taken for each other."""
    assert amount("accept_rate", 0.05) == "+5.0 pt"
    assert amount("latency", -0.1) == "-0.100 s"
    assert amount("cost", 0.002) == "+$0.00200"
