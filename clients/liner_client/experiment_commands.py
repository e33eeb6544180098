"""`liner experiment`: which model is better, and who gets how much of the tracks."""

import json
import sys
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from liner.v1 import experiment_pb2
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from liner_client import render
from liner_client.client import LinerClient
from liner_client.experiment_page import page, usd
from liner_client.output import OutputForm
from liner_client.records import word
from liner_client.results_commands import Command

_Form = Annotated[OutputForm, typer.Option("--output", "-o", help="How results are written.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's.")]
_Html = Annotated[
    Path | None,
    typer.Option("--html", dir_okay=False, help="Write a page with plots here; needs no network."),
]
_BAR = 24
_COLOURS = {
    experiment_pb2.EXPERIMENT_VERDICT_ADOPT: "bold green",
    experiment_pb2.EXPERIMENT_VERDICT_STOP: "bold red",
}
METRICS = {
    "accept_rate": "accepted by editors",
    "agreement": "agrees with other evidence",
    "success_rate": "success",
    "confidence": "confidence",
    "latency": "mean time",
    "cost": "cost",
}
"""How people call the metrics of a report."""


def add_to(command: Command) -> None:
    """Add the commands that look at experiments and steer them."""
    command("list")(_list)
    command("report")(_report)
    command("set-traffic")(_set_traffic)
    command("replay")(_replay)


async def _list(liner: LinerClient, output: _Form = OutputForm.TABLE) -> int:
    """List experiments, running ones first: shares, since when, and why one stopped."""
    found = await liner.experiments.list()
    if output is not OutputForm.TABLE:
        for one in found:
            _print(one)
        return 0
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("experiment", "state", "since", "shares", ""):
        table.add_column(name, overflow="fold")
    for one in found:
        shares = "  ".join(f"{v.variant} {100 * v.traffic:g} %" for v in one.variants)
        table.add_row(
            render.plain(one.experiment_name),
            Text("running", "green") if one.running else Text("stopped", "yellow"),
            f"{one.start_time.ToDatetime():%Y-%m-%d %H:%M}",
            render.plain(shares),
            render.plain(one.stop_reason),
        )
    render.console().print(table if found else Text("no experiments are configured", "dim"))
    return 0


async def _report(
    liner: LinerClient, name: _Name, html: _Html = None, output: _Form = OutputForm.TABLE
) -> int:
    """Compare an experiment's variants, with intervals that hold at every look.

    The verdict is one of keep running, adopt and stop, and says why. With --html it writes one
    self-contained page with plots: intervals over time, confidence, reliability, cost.
    """
    found = await liner.experiments.report(name)
    _show(found, html, output)
    return 0


async def _set_traffic(
    liner: LinerClient,
    name: _Name,
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="One that is tried.")],
    traffic: Annotated[float, typer.Argument(min=0, max=1, help="Its new share, 0 to 1.")],
    reason: Annotated[str, typer.Option(help="Why; kept with your name.")],
    force: Annotated[
        bool, typer.Option("--force", help="Start again what a guardrail stopped.")
    ] = False,
    output: _Form = OutputForm.TABLE,
) -> int:
    """Change the share of tracks that a variant gets; the control has the rest."""
    changed = await liner.experiments.set_traffic(
        name, variant, traffic, reason=reason, force=force
    )
    if output is not OutputForm.TABLE:
        _print(changed)
        return 0
    shares = ", ".join(f"{v.variant} {100 * v.traffic:g} %" for v in changed.variants)
    render.console().print(Text(render.plain(f"{changed.experiment_name}: {shares}")))
    return 0


async def _replay(
    liner: LinerClient,
    model: Annotated[str, typer.Option(help="The configured model to ask, alone.")],
    max_cost: Annotated[
        float, typer.Option("--max-cost", min=0.000001, help="US dollars it may cost.")
    ],
    tracks: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    stored: Annotated[str, typer.Option(help="Only what this model answered.")] = "",
    in_flight: Annotated[int, typer.Option(min=1, max=32, help="Asked at once.")] = 4,
    within: Annotated[float, typer.Option(min=1, help="Seconds for all of it.")] = 3600.0,
    html: _Html = None,
    output: _Form = OutputForm.TABLE,
) -> int:
    """Ask another model what stored enrichments were asked, and compare the answers.

    Nothing is stored and no experiment counts it. An editor's verdicts on the stored answers count
    for the new ones where they say the same. A new prompt is tried by a server that has it. Begins
    no question once --max-cost is spent.
    """
    request = experiment_pb2.ReplayEnrichmentsRequest(
        model=model,
        stored_model=stored,
        max_tracks=tracks,
        max_cost_usd=max_cost,
        max_in_flight=in_flight,
    )
    screen = render.console(stderr=True)
    last = experiment_pb2.ReplayEnrichmentsResponse()
    steps = liner.experiments.replay(request, within=timedelta(seconds=within))
    async with aclosing(steps) as progress:
        async for last in progress:
            if not last.HasField("report"):
                told = f"{last.replayed} replayed, {last.skipped} skipped, ${last.cost_usd:.4f}"
                screen.print(Text(told, "dim"))
    note = ", ended at --max-cost" if last.out_of_money else ""
    screen.print(
        Text(f"{last.replayed} replayed, {last.skipped} skipped, ${last.cost_usd:.4f}{note}")
    )
    _show(last.report, html, output)
    return 0


def _show(found: experiment_pb2.GetReportResponse, html: Path | None, output: OutputForm) -> None:
    if html is not None:
        html.write_text(page(found), encoding="utf-8")
        render.console(stderr=True).print(Text(f"page written to {html}", "dim"))
    if output is not OutputForm.TABLE:
        _print(found)
    else:
        render.console().print(report_block(found))


def report_block(found: experiment_pb2.GetReportResponse) -> RenderableType:
    """Return a report as a terminal shows it."""
    verdict = word(
        experiment_pb2.ExperimentVerdict.Name(found.verdict), "EXPERIMENT_VERDICT_"
    ).replace("_", " ")
    head = Text(render.plain(found.experiment.experiment_name), "bold")
    head.append("  ").append(verdict.lower(), _COLOURS.get(found.verdict, "bold cyan"))
    why = Text(f"  {render.plain(found.verdict_reason, longest=500)}", overflow="fold")
    parts: list[RenderableType] = [head, why, Text(), _variants(found)]
    if found.differences:
        parts += [
            Text(),
            Text("difference to the control; all intervals hold together, at every look", "dim"),
            _differences(found),
        ]
    return Group(*parts)


def _variants(found: experiment_pb2.GetReportResponse) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("")
    for one in found.variants:
        table.add_column(render.plain(one.variant), justify="left", overflow="fold")
    shares = {v.variant: v for v in found.experiment.variants}
    rows: list[tuple[str, Sequence[str | Text]]] = [
        ("model", [render.plain(shares[v.variant].model or "usual") for v in found.variants]),
        ("tracks", [f"{v.tracks:,} of {v.assigned_tracks:,} drawn" for v in found.variants]),
        (
            "accepted",
            [
                bar(v.accept_rate).append(f"\nof {v.reviewed_fields:,} fields")
                if v.HasField("accept_rate")
                else "nobody reviewed"
                for v in found.variants
            ],
        ),
        (
            "agreement",
            [
                bar(v.agreement_rate) if v.HasField("agreement_rate") else "nothing to compare"
                for v in found.variants
            ],
        ),
        ("success", [bar(v.success_rate) for v in found.variants]),
        ("confidence", [bar(v.mean_confidence) for v in found.variants]),
        (
            "p50 / 95 / 99",
            [
                " / ".join(
                    f"{t.ToTimedelta().total_seconds():.2f} s"
                    for t in (v.latency_p50, v.latency_p95, v.latency_p99)
                )
                for v in found.variants
            ],
        ),
        ("cost a track", [usd(v.cost_usd_per_track) for v in found.variants]),
        ("fallback", [f"{100 * v.fallback_rate:.1f} %" for v in found.variants]),
    ]
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _differences(found: experiment_pb2.GetReportResponse) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("variant", "metric", "difference", "lower", "upper", ""):
        number = name in ("difference", "lower", "upper")
        # Folded rather than cut: a number without its end is another number.
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for one in found.differences:
        told = [amount(one.metric, value) for value in (one.estimate, one.lower, one.upper)]
        sure = one.lower > 0 or one.upper < 0
        mark = Text("differs", "bold") if sure else Text("not sure", "dim")
        if one.metric == found.deciding_metric:
            mark.append("  decides", "cyan")
        table.add_row(render.plain(one.variant), METRICS.get(one.metric, one.metric), *told, mark)
    return table


def bar(share: float) -> Text:
    """Return a share as a number and a bar, of which a narrow terminal cuts off the end."""
    full = round(min(max(share, 0.0), 1.0) * _BAR)
    told = f"{100 * share:5.1f} % {'█' * full}{'░' * (_BAR - full)}"
    return Text(told, no_wrap=True, overflow="crop")


def amount(metric: str, value: float) -> str:
    """Return a difference in its metric's unit."""
    match metric:
        case "latency":
            return f"{value:+.3f} s"
        case "cost":
            return f"{'-' if value < 0 else '+'}{usd(value)}"
        case "confidence":
            return f"{value:+.4f}"
    return f"{100 * value:+.1f} pt"


def _print(message: Message) -> None:
    record = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    text = json.dumps(record, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()
