"""A report as one page: plots in SVG, no scripts, nothing fetched from anywhere.

Colours come in light and dark; every plot has its numbers in a table or a label beside it, so
that colour is never the only way to tell variants apart.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from liner.v1 import experiment_pb2

_Report = experiment_pb2.GetReportResponse
_PALETTE = ("#5b7083", "#c2571a", "#2f7d4f", "#7a4fa3", "#a3364f", "#2b6cb0", "#8a6d1a", "#3d8080")
"""By place of the variant; the control is the grey one."""

_VERDICTS = {
    experiment_pb2.EXPERIMENT_VERDICT_KEEP_RUNNING: ("Keep running", "wait"),
    experiment_pb2.EXPERIMENT_VERDICT_ADOPT: ("Adopt", "good"),
    experiment_pb2.EXPERIMENT_VERDICT_STOP: ("Stop", "bad"),
}
_METRICS = {
    "accept_rate": "accepted by editors",
    "agreement": "agreement with other evidence",
    "success_rate": "success",
    "confidence": "confidence",
    "latency": "mean time",
    "cost": "cost a track",
}
_STYLE = """
:root{color-scheme:light dark;--bg:#fbfaf7;--ink:#1d2329;--soft:#66707a;--line:#d9d6cd;--card:#fff;
--good:#24703f;--bad:#a52b2b;--wait:#2a5d8f}
@media(prefers-color-scheme:dark){:root{--bg:#15181b;--ink:#e8e6e1;--soft:#98a1aa;--line:#343a40;
--card:#1d2125;--good:#6cc58a;--bad:#ee8585;--wait:#85b7e8}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:16px;margin:0 0 2px}
p{margin:0;max-width:75ch;overflow-wrap:anywhere}
.soft{color:var(--soft);font-size:13px}
.verdict{margin:20px 0 24px;padding:14px 18px;background:var(--card);border:1px solid var(--line);
border-left:6px solid var(--c);border-radius:6px}
.verdict b{color:var(--c);font-size:20px}
.good{--c:var(--good)}.bad{--c:var(--bad)}.wait{--c:var(--wait)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px}
section{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:14px 16px;
min-width:0}
.wide{grid-column:1/-1}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal}
@media(max-width:600px){table{font-size:13px}th,td{padding:5px 6px;white-space:normal}}
tr:last-child td{border-bottom:0}
th{font-weight:600}
i.key{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:6px}
svg{display:block;width:100%;height:auto;margin-top:8px}
svg text{fill:var(--soft);font:12px system-ui,sans-serif}
svg text.ink{fill:var(--ink)}
.axis{stroke:var(--line);stroke-width:1}
.zero{stroke:var(--ink);stroke-width:1;stroke-dasharray:4 4;opacity:.6}
"""


def page(report: _Report) -> str:
    """Return a report as an HTML page that needs nothing else."""
    names = [one.variant for one in report.variants]
    colours = {name: _PALETTE[place % len(_PALETTE)] for place, name in enumerate(names)}
    title, kind = _VERDICTS.get(report.verdict, ("No verdict", "wait"))
    name = escape(report.experiment.experiment_name)
    state = "running" if report.experiment.running else "not running"
    why = report.experiment.stop_reason
    since = report.experiment.start_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
    read = report.read_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
    stopped = f" &middot; {escape(why)}" if why else ""
    parts = [
        _section("Variants", "", _variants(report, colours), wide=True),
        _section(
            "Difference to the control",
            "All intervals hold together, at every look, with probability 95 %.",
            _differences(report),
            wide=True,
        ),
        _section(
            f"{_METRICS.get(report.deciding_metric, 'deciding metric').capitalize()}, over time",
            "The metric that decides: difference to the control, and the interval around it."
            " Clear of zero, it is decided.",
            _trend(report, colours),
        ),
        _section(
            "Confidence of answers",
            "Share of a variant's tracks in each range of confidence.",
            _confidence(report, colours),
        ),
        _section(
            "Reliability",
            "What editors accepted, by the confidence it was given with. On the dashed line,"
            " confidence is what it says; the larger the dot, the more fields.",
            _reliability(report, colours),
        ),
        _section(
            "Cost a track",
            "US dollars, at the configured prices.",
            _cost(report, colours),
        ),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name}: {title}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{name}</h1>"
        f'<p class="soft">{state} since {since} UTC &middot; read {read} UTC{stopped}</p>'
        f'<div class="verdict {kind}"><b>{title}</b>'
        f"<p>{escape(report.verdict_reason)}</p></div>"
        f'<div class="grid">{"".join(parts)}</div></main></body></html>\n'
    )


def _section(title: str, told: str, body: str, *, wide: bool = False) -> str:
    kind = ' class="wide"' if wide else ""
    note = f'<p class="soft">{escape(told)}</p>' if told else ""
    return f"<section{kind}><h2>{escape(title)}</h2>{note}{body}</section>"


def _variants(report: _Report, colours: dict[str, str]) -> str:
    shares = {one.variant: one for one in report.experiment.variants}
    head = "".join(
        f'<th><i class="key" style="background:{colours[one.variant]}"></i>{escape(one.variant)}'
        "</th>"
        for one in report.variants
    )

    def seconds(one: experiment_pb2.VariantReport) -> str:
        times = (one.latency_p50, one.latency_p95, one.latency_p99)
        return " / ".join(f"{t.ToTimedelta().total_seconds():.2f}" for t in times)

    cells: list[tuple[str, Callable[[experiment_pb2.VariantReport], str]]] = [
        ("Model", lambda v: escape(shares[v.variant].model or "usual")),
        ("Share now", lambda v: f"{100 * shares[v.variant].traffic:g} %"),
        ("Tracks drawn", lambda v: f"{v.assigned_tracks:,}"),
        ("Tracks answered", lambda v: f"{v.tracks:,}"),
        ("Success", lambda v: f"{100 * v.success_rate:.2f} %"),
        (
            "Accepted by editors",
            lambda v: (
                f"{100 * v.accept_rate:.1f} % of {v.reviewed_fields:,} fields"
                if v.HasField("accept_rate")
                else "&ndash;"
            ),
        ),
        (
            "Agreement with other evidence",
            lambda v: (
                f"{100 * v.agreement_rate:.1f} %" if v.HasField("agreement_rate") else "&ndash;"
            ),
        ),
        ("Mean confidence", lambda v: f"{v.mean_confidence:.3f}"),
        ("Time p50 / p95 / p99, s", seconds),
        ("Cost a track", lambda v: usd(v.cost_usd_per_track)),
        ("Answered by the fallback", lambda v: f"{100 * v.fallback_rate:.1f} %"),
    ]
    rows = "".join(
        f"<tr><td>{name}</td>{''.join(f'<td>{cell(one)}</td>' for one in report.variants)}</tr>"
        for name, cell in cells
    )
    return f'<div class="scroll"><table><tr><th></th>{head}</tr>{rows}</table></div>'


def _differences(report: _Report) -> str:
    if not report.differences:
        return '<p class="soft">Nothing to compare yet.</p>'
    rows = []
    for one in report.differences:
        sure = "differs" if one.lower > 0 or one.upper < 0 else "not sure"
        decides = " &middot; decides" if one.metric == report.deciding_metric else ""
        told = "".join(
            f"<td>{_amount(one.metric, value)}</td>"
            for value in (one.estimate, one.lower, one.upper)
        )
        rows.append(
            f"<tr><td>{escape(one.variant)}: {_METRICS.get(one.metric, escape(one.metric))}</td>"
            f"{told}<td>{one.variant_tracks:,} / {one.control_tracks:,}</td>"
            f"<td>{sure}{decides}</td></tr>"
        )
    titles = ("", "Difference", "At least", "At most", "Tracks", "")
    head = f"<tr>{''.join(f'<th>{title}</th>' for title in titles)}</tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _amount(metric: str, value: float) -> str:
    match metric:
        case "latency":
            return f"{value:+.3f} s"
        case "cost":
            return f"{'&minus;' if value < 0 else '+'}{usd(value)}"
        case "confidence":
            return f"{value:+.4f}"
    return f"{100 * value:+.1f} points"


_WIDTH, _HEIGHT = 520, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 34


class _Plot:
    """Axes and what is drawn in them; x and y are in the data's units."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], label: str, *, height: int = _HEIGHT
    ) -> None:
        self._x, self._y, self._height = x, y, height
        self._label = label
        self._parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the data is on the picture."""
        (x0, x1), (y0, y1) = self._x, self._y
        across = (x - x0) / (x1 - x0 or 1)
        up = (y - y0) / (y1 - y0 or 1)
        inner = self._height - _TOP - _BOTTOM
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _TOP + (1 - up) * inner

    def add(self, text: str) -> None:
        """Draw something."""
        self._parts.append(text)

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, name: str = "") -> None:
        """Draw a line through points of the data."""
        told = " ".join(f"{px:.1f},{py:.1f}" for px, py in (self.at(*point) for point in points))
        title = f"<title>{escape(name)}</title>" if name else ""
        self.add(
            f'<polyline points="{told}" fill="none" stroke="{colour}" stroke-width="2"'
            f' stroke-linejoin="round">{title}</polyline>'
        )

    def across(self, y: float, text: str, *, kind: str = "axis") -> None:
        """Draw a horizontal line with a label at its left."""
        x0, py = self.at(self._x[0], y)
        x1, _ = self.at(self._x[1], y)
        self.add(f'<line class="{kind}" x1="{x0:.1f}" x2="{x1:.1f}" y1="{py:.1f}" y2="{py:.1f}"/>')
        self.text(x0 - 6, py + 4, text, anchor="end")

    def below(self, x: float, text: str, *, anchor: str = "middle") -> None:
        """Write a label below the x axis."""
        px, _ = self.at(x, self._y[0])
        self.text(px, self._height - _BOTTOM + 18, text, anchor=anchor)

    def text(self, px: float, py: float, text: str, *, anchor: str, ink: bool = False) -> None:
        """Write text at a place of the picture."""
        kind = ' class="ink"' if ink else ""
        self.add(
            f'<text{kind} x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def done(self) -> str:
        """Return the picture."""
        return (
            f'<svg viewBox="0 0 {_WIDTH} {self._height}" role="img"'
            f' aria-label="{escape(self._label, quote=True)}">{"".join(self._parts)}</svg>'
        )


def _trend(report: _Report, colours: dict[str, str]) -> str:
    if not report.trend:
        return '<p class="soft">No point in time has enough tracks yet.</p>'
    tried = list(dict.fromkeys(point.difference.variant for point in report.trend))
    # The first intervals are so wide that they would flatten all that follow.
    last = [[p for p in report.trend if p.difference.variant == name][-1] for name in tried]
    reach = max(
        3 * max(p.difference.upper - p.difference.estimate for p in last),
        1.5 * max(abs(p.difference.estimate) for p in report.trend[-1:]),
        0.01,
    )
    reach = min(reach, 1.0)
    times = [point.time.ToMilliseconds() for point in report.trend]
    plot = _Plot(
        (min(times), max(max(times), min(times) + 1)),
        (-reach, reach),
        f"Difference in {report.deciding_metric} over time with its interval",
    )
    for share in (-reach, -reach / 2, 0.0, reach / 2, reach):
        label = f"{100 * share:+.1f}" if share else "0"
        plot.across(share, label, kind="axis" if share else "zero")
    for name in tried:
        points = [p for p in report.trend if p.difference.variant == name]

        def clipped(value: float) -> float:
            return min(max(value, -reach), reach)

        upper = [(p.time.ToMilliseconds(), clipped(p.difference.upper)) for p in points]
        lower = [(p.time.ToMilliseconds(), clipped(p.difference.lower)) for p in points]
        band = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (plot.at(*at) for at in [*upper, *lower[::-1]])
        )
        plot.add(f'<polygon points="{band}" fill="{colours[name]}" opacity=".2"/>')
        middle = [(p.time.ToMilliseconds(), clipped(p.difference.estimate)) for p in points]
        plot.line(middle, colours[name], name=name)
    first, final = report.trend[0].time.ToDatetime(), report.trend[-1].time.ToDatetime()
    form = "%H:%M:%S" if (final - first).total_seconds() < 3600 else "%Y-%m-%d %H:%M"
    plot.below(min(times), first.strftime(form), anchor="start")
    if final > first:
        plot.below(max(times), final.strftime(form), anchor="end")
    return plot.done() + _keys(((name, colours[name]) for name in tried), "in points")


def _confidence(report: _Report, colours: dict[str, str]) -> str:
    shares = {
        one.variant: [count / sum(one.confidence_histogram) for count in one.confidence_histogram]
        for one in report.variants
        if sum(one.confidence_histogram)
    }
    if not shares:
        return '<p class="soft">No answers yet.</p>'
    highest = max(max(values) for values in shares.values())
    plot = _Plot((0, 1), (0, highest * 1.08), "Distribution of confidence by variant")
    for part in (0.0, highest / 2, highest):
        plot.across(part, f"{100 * part:.0f} %")
    for name, values in shares.items():
        steps = [(0.0, 0.0)]
        for place, value in enumerate(values):
            steps += [(place / len(values), value), ((place + 1) / len(values), value)]
        steps.append((1.0, 0.0))
        area = " ".join(f"{x:.1f},{y:.1f}" for x, y in (plot.at(*step) for step in steps))
        plot.add(f'<polygon points="{area}" fill="{colours[name]}" opacity=".18"/>')
        plot.line(steps, colours[name], name=name)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        plot.below(tick, f"{tick:g}")
    return plot.done() + _keys((name, colours[name]) for name in shares)


def _reliability(report: _Report, colours: dict[str, str]) -> str:
    known = [one for one in report.variants if one.reliability]
    if not known:
        return '<p class="soft">No editor has reviewed anything yet.</p>'
    plot = _Plot((0, 1), (0, 1), "Accept rate against confidence by variant", height=300)
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        plot.across(part, f"{100 * part:.0f} %")
        plot.below(part, f"{part:g}")
    (x0, y0), (x1, y1) = plot.at(0, 0), plot.at(1, 1)
    plot.add(f'<line class="zero" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
    most = max(entry.fields for one in known for entry in one.reliability)
    for one in known:
        colour = colours[one.variant]
        plot.line([(entry.mean_confidence, entry.accept_rate) for entry in one.reliability], colour)
        for entry in one.reliability:
            px, py = plot.at(entry.mean_confidence, entry.accept_rate)
            told = (
                f"{one.variant}: {entry.fields} fields at {entry.mean_confidence:.2f},"
                f" {100 * entry.accept_rate:.0f} % accepted"
            )
            size = 3 + 6 * (entry.fields / most) ** 0.5
            plot.add(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{size:.1f}" fill="{colour}"'
                f' opacity=".85"><title>{escape(told)}</title></circle>'
            )
    return plot.done() + _keys((one.variant, colours[one.variant]) for one in known)


def _cost(report: _Report, colours: dict[str, str]) -> str:
    highest = max((one.cost_usd_per_track for one in report.variants), default=0.0)
    if highest <= 0:
        return '<p class="soft">No model has cost anything.</p>'
    height = 40 * len(report.variants) + 16
    rows = []
    for place, one in enumerate(report.variants):
        top = 8 + 40 * place
        long = max(1.0, 300 * one.cost_usd_per_track / highest)
        rows.append(
            f'<text class="ink" x="0" y="{top + 17}">{escape(_short(one.variant))}</text>'
            f'<rect x="110" y="{top}" width="{long:.1f}" height="26" rx="2"'
            f' fill="{colours[one.variant]}"/>'
            f'<text class="ink" x="{118 + long:.1f}" y="{top + 17}">'
            f"{usd(one.cost_usd_per_track)}</text>"
        )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Cost a track by variant">'
        f"{''.join(rows)}</svg>"
    )


def usd(value: float) -> str:
    """Return an amount without its sign, in three digits that count: $0.0000124, $1.20."""
    size = abs(value)
    places = 2 if size >= 1 or not size else min(12, 2 - math.floor(math.log10(size)))
    return f"${size:.{places}f}"


def _short(name: str) -> str:
    return name if len(name) <= 15 else name[:14] + "\N{HORIZONTAL ELLIPSIS}"


def _keys(entries: Iterable[tuple[str, str]], unit: str = "") -> str:
    told = " &nbsp; ".join(
        f'<i class="key" style="background:{colour}"></i>{escape(name)}' for name, colour in entries
    )
    return f'<p class="soft">{told}{f" &nbsp; {unit}" if unit else ""}</p>'
