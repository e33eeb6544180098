"""What people see: a compact block a track, in colour only on a terminal.

Every text that came from outside goes through `plain` and is shown as text, never as markup: a
title must not move the cursor or paint the screen.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import timedelta

from liner.v1 import enrichment_pb2, track_pb2
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from liner_client.errors import from_item
from liner_client.records import Outcome, word

_MARKS: dict[int, tuple[str, str]] = {
    track_pb2.DECISION_KEPT: ("=", "dim"),
    track_pb2.DECISION_FILLED: ("+", "green"),
    track_pb2.DECISION_CORRECTED: ("~", "yellow"),
    track_pb2.DECISION_PROPOSED: ("?", "cyan"),
    track_pb2.DECISION_ABSTAINED: ("-", "dim"),
}
_SEVERITIES: dict[int, tuple[str, str]] = {
    enrichment_pb2.SEVERITY_ERROR: ("error", "red"),
    enrichment_pb2.SEVERITY_WARNING: ("warning", "yellow"),
    enrichment_pb2.SEVERITY_INFO: ("info", "blue"),
}
LEGEND = "+ filled   ~ corrected   ? proposed, what was given stands   = kept   - not known"

_WIDTH_OF_A_FILE = 110
"""Columns where no terminal says how many there are."""

_LONGEST_VALUE = 160


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the command end as it does elsewhere, in place of rich's own exit code."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal, without colours where there is none."""
    made = _Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = _WIDTH_OF_A_FILE
    return made


def plain(value: str, *, longest: int = _LONGEST_VALUE) -> str:
    """Return text that is safe to print on one line."""
    shown = "".join(
        " " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in value
    )
    return shown if len(shown) <= longest else shown[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def outcome_block(outcome: Outcome, *, every_field: bool = False) -> RenderableType:
    """Return one track's block: what changed and why, what was kept, what is wrong with it."""
    name = outcome.entry.row.get("path") or outcome.entry.item_id
    if outcome.answer is None:
        return Group(_title(name, "failed", "bold red"), error_lines(outcome.error), Text())
    answer = outcome.answer
    review = answer.processing.needs_review
    head = _title(
        name, "needs review" if review else "ok", "bold yellow" if review else "bold green"
    )
    told = _told(answer.track)
    if told:
        head.append("  ").append(told, "italic")
    parts: list[RenderableType] = [head]
    facts = properties_line(answer.track.properties)
    if facts:
        parts.append(_indented(Text(facts, "dim")))
    parts.append(_indented(_fields(answer.fields, every_field=every_field)))
    parts.extend(_indented(line) for line in _rest(answer.fields, every_field=every_field))
    parts.extend(issue_lines(answer.issues))
    parts.extend(
        _labelled("review", "yellow", plain(reason, longest=400))
        for reason in _new(answer.processing.review_reasons, answer.issues)
    )
    return Group(*parts, Text())


def _title(name: str, state: str, style: str) -> Text:
    text = Text(plain(name), "bold", overflow="fold")
    return text.append("  ").append(state, style)


def _told(track: track_pb2.Track) -> str:
    artists = ", ".join(artist.name for artist in track.artists)
    return plain(" - ".join(part for part in (artists, track.title) if part))


def properties_line(facts: track_pb2.AudioProperties) -> str:
    """Return what the file is, on one line; empty when nothing was measured."""
    parts = [plain(facts.container), plain(facts.codec) if facts.codec != facts.container else ""]
    if facts.sample_rate_hz:
        parts.append(f"{facts.sample_rate_hz / 1000:g} kHz")
    if facts.bit_depth:
        parts.append(f"{facts.bit_depth} bit")
    elif facts.bit_rate_bps:
        parts.append(f"{facts.bit_rate_bps / 1000:.0f} kbit/s")
    if facts.channels:
        parts.append({1: "mono", 2: "stereo"}.get(facts.channels, f"{facts.channels} channels"))
    if facts.HasField("duration"):
        parts.append(clock(facts.duration.ToTimedelta()))
    if facts.HasField("integrated_loudness_lufs"):
        parts.append(f"{facts.integrated_loudness_lufs:.1f} LUFS")
    if facts.HasField("true_peak_dbtp"):
        parts.append(f"peak {facts.true_peak_dbtp:.1f} dBTP")
    return "  ".join(part for part in parts if part)


def clock(duration: timedelta) -> str:
    """Return a playing time as 3:07."""
    minutes, seconds = divmod(round(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _shown_in_table(found: track_pb2.FieldResult, *, every_field: bool) -> bool:
    if every_field:
        return True
    changed = (
        track_pb2.DECISION_FILLED,
        track_pb2.DECISION_CORRECTED,
        track_pb2.DECISION_PROPOSED,
    )
    if found.field.startswith("properties."):
        # Measured facts have their line; only where the caller said otherwise is one of interest.
        return found.HasField("given_value") and found.decision in changed
    return found.decision in changed


def _fields(results: Iterable[track_pb2.FieldResult], *, every_field: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("field", no_wrap=True)
    table.add_column("before", overflow="fold", max_width=24)
    table.add_column("after", overflow="fold", max_width=30)
    table.add_column("conf.", justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=1)
    for found in results:
        if not _shown_in_table(found, every_field=every_field):
            continue
        mark, style = _MARKS.get(found.decision, ("", ""))
        known = found.decision != track_pb2.DECISION_ABSTAINED
        source = found.model or word(track_pb2.Source.Name(found.source), "SOURCE_").lower()
        table.add_row(
            Text(f"{mark} {found.field}", style),
            Text(plain(found.given_value) or "-", "dim"),
            Text(plain(found.value) if known else "-", style),
            Text(f"{found.confidence:.2f}" if known else "-", _confidence(found.confidence)),
            Text(plain(source) if known else "-", "dim"),
            Text(plain(found.reason, longest=240), "dim"),
        )
    if not table.row_count:
        table.show_header = False
    return table


def _confidence(value: float) -> str:
    return "green" if value >= 0.8 else "yellow" if value >= 0.5 else "red"


def _rest(results: Sequence[track_pb2.FieldResult], *, every_field: bool) -> Iterable[Text]:
    """Yield the fields that have no row of their own, by decision."""
    if every_field:
        return
    for decision, name in ((track_pb2.DECISION_KEPT, "kept"),
                           (track_pb2.DECISION_ABSTAINED, "not known")):  # fmt: skip
        fields = [
            found.field
            for found in results
            if found.decision == decision and not found.field.startswith("properties.")
        ]
        if fields:
            yield Text(f"{_MARKS[decision][0]} {name}: {', '.join(fields)}", "dim")


def issue_lines(issues: Iterable[enrichment_pb2.ValidationIssue]) -> Iterable[RenderableType]:
    """Yield one line a broken rule."""
    for issue in issues:
        label, style = _SEVERITIES.get(issue.severity, ("note", ""))
        text = f"{issue.rule_id} ({issue.field}): {issue.message}" if issue.field else (
            f"{issue.rule_id}: {issue.message}"
        )  # fmt: skip
        yield _labelled(label, style, plain(text, longest=400))


def error_lines(error: track_pb2.Error | None) -> RenderableType:
    """Return why an input failed."""
    typed = from_item(error or track_pb2.Error())
    lines = [_labelled("error", "red", f"{typed.reason}: {plain(typed.message, longest=400)}")]
    lines.extend(
        _labelled("", "red", plain(f"{v.field}: {v.description}", longest=400))
        for v in typed.violations
        if v.description not in typed.message
    )
    return Group(*lines)


def _new(reasons: Iterable[str], issues: Sequence[enrichment_pb2.ValidationIssue]) -> list[str]:
    """Return the reasons that no issue says already."""
    return [r for r in reasons if not any(i.message and i.message in r for i in issues)]


def _labelled(label: str, style: str, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(min_width=7, no_wrap=True)
    grid.add_column(overflow="fold", ratio=1)
    grid.add_row(Text(label, style), Text(text))
    return _indented(grid)


def _indented(part: RenderableType) -> RenderableType:
    return Padding(part, (0, 0, 0, 2), expand=False)


def validation_block(outcome: Outcome) -> RenderableType:
    """Return what the rules say of one track."""
    name, answer = outcome.entry.item_id, outcome.judged
    if answer is None:
        return Group(_title(name, "failed", "bold red"), error_lines(outcome.error), Text())
    bad = any(issue.severity == enrichment_pb2.SEVERITY_ERROR for issue in answer.issues)
    state, style = ("has errors", "bold red") if bad else ("ok", "bold green")
    head = _title(name, state, style).append(f"  {answer.confidence:.2f}", "dim")
    parts: list[RenderableType] = [head, *issue_lines(answer.issues)]
    parts.extend(
        _labelled(
            "mend",
            "cyan",
            plain(f"{c.field}: {c.current or '-'} > {c.suggested or '-'} ({c.rule_id})"),
        )
        for c in answer.suggestions
    )
    return Group(*parts, Text())


def batch_block(summary: enrichment_pb2.BatchSummary) -> RenderableType:
    """Return what the inputs say against each other, by input."""
    parts: list[RenderableType] = [
        _title("across the batch", f"{summary.compared} compared", "dim")
    ]
    for found in summary.batch_issues:
        label, style = _SEVERITIES.get(found.issue.severity, ("note", ""))
        text = f"{found.item_id}: {found.issue.rule_id} ({found.issue.field}): "
        parts.append(_labelled(label, style, plain(text + found.issue.message, longest=600)))
    if summary.batch_issues_omitted:
        parts.append(_labelled("", "dim", f"and {summary.batch_issues_omitted} more"))
    return Group(*parts, Text())


def models_table(answer: enrichment_pb2.ListModelsResponse) -> RenderableType:
    """Return the models and the flags in force."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("model", "version", "ready", "breaker", "hears audio", "role", "today", "status"):
        table.add_column(name, overflow="fold")
    for model in answer.models:
        breaker = word(enrichment_pb2.BreakerState.Name(model.breaker_state), "BREAKER_STATE_")
        table.add_row(
            plain(model.name),
            plain(model.version),
            Text("yes", "green") if model.ready else Text("no", "red"),
            "-" if model.breaker_state == 0 else breaker.lower(),
            "yes" if model.hears_audio else "no",
            plain(model.role),
            f"${model.usage_today.cost_usd:.5f}" if model.HasField("usage_today") else "-",
            plain(model.status),
        )
    flags = "   ".join(
        f"{field.name.upper()} {'on' if getattr(answer.flags, field.name) else 'off'}"
        for field in answer.flags.DESCRIPTOR.fields
    )
    lines = [Text(flags, "dim")]
    if answer.flags_problem:
        lines.append(Text(plain(answer.flags_problem, longest=400), "red"))
    return Group(table, Text(), *lines)
