"""The statements that both backends run, in GoogleSQL.

They keep to what SQLite has too, but for three functions that `for_sqlite` spells otherwise.
Parameters are @named in both. `{name}` stands for a table. Rows of the same `row_id` are one row:
each statement begins with the one that counts of each track, field or id. Columns are named, since
what is selected is what BigQuery bills and SQLite sorts.
"""

# ruff: noqa: S608 - only names and numbers of ours are put into the statements
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from liner.v1 import analytics_pb2

from liner_server.core.rows import fill
from liner_server.core.tallied import SECONDS_BASE
from liner_server.ports_analytics import (
    CONFIDENCE_BINS,
    RELIABILITY_BINS,
    Assigned,
    Bin,
    Period,
    Reviewed,
    Sums,
    Table,
    Tally,
)

Record = Mapping[str, Any]

_IN_WINDOW = (
    "experiment = @experiment AND variant <> '' AND time >= @time_from AND time < @time_before"
)

_FIRST_ROWS = f"""
WITH ranked AS (
  SELECT variant, time, success, confidence, processing_seconds, cost_usd, fallback_used,
    checked_fields, agreed_fields,
    ROW_NUMBER() OVER (PARTITION BY track ORDER BY time, row_id) AS place
  FROM {{{Table.EXPERIMENTS}}}
  WHERE {_IN_WINDOW} AND from_cache = FALSE
), firsts AS (SELECT * FROM ranked WHERE place = 1)"""
"""One row a track. A copy of a row has its time and id too, so it cannot come first as well."""

PERIODS = f"""{_FIRST_ROWS}
SELECT variant, DIV((UNIX_MICROS(time) - @start), @width) AS period,
  COUNT(*) AS tracks,
  SUM(CASE WHEN success THEN 1 ELSE 0 END) AS successes,
  SUM(CASE WHEN success THEN confidence ELSE 0.0 END) AS confidence,
  SUM(CASE WHEN success THEN confidence * confidence ELSE 0.0 END) AS confidence_squares,
  SUM(processing_seconds) AS seconds,
  SUM(processing_seconds * processing_seconds) AS seconds_squares,
  SUM(cost_usd) AS cost,
  SUM(cost_usd * cost_usd) AS cost_squares,
  SUM(CASE WHEN fallback_used THEN 1 ELSE 0 END) AS fallbacks,
  SUM(CASE WHEN checked_fields > 0 THEN 1 ELSE 0 END) AS checked,
  SUM(CASE WHEN checked_fields > 0 THEN agreed_fields * 1.0 / checked_fields ELSE 0.0 END)
    AS agreement,
  SUM(CASE WHEN checked_fields > 0
    THEN agreed_fields * 1.0 / checked_fields * agreed_fields / checked_fields ELSE 0.0 END)
    AS agreement_squares
FROM firsts GROUP BY variant, period ORDER BY variant, period"""

SECONDS = f"""{_FIRST_ROWS}
SELECT variant, CAST(FLOOR(LN(processing_seconds + 0.0001) / LN({SECONDS_BASE})) AS INT64) AS bin,
  COUNT(*) AS tracks
FROM firsts GROUP BY variant, bin ORDER BY variant, bin"""

CONFIDENCE = f"""{_FIRST_ROWS}
SELECT variant,
  LEAST(CAST(FLOOR(confidence * {CONFIDENCE_BINS}) AS INT64), {CONFIDENCE_BINS - 1}) AS bin,
  COUNT(*) AS tracks
FROM firsts WHERE success GROUP BY variant, bin ORDER BY variant, bin"""

ASSIGNED = f"""
WITH ranked AS (
  SELECT allocation, variant,
    ROW_NUMBER() OVER (PARTITION BY track ORDER BY time, row_id) AS place
  FROM {{{Table.EXPERIMENTS}}} WHERE {_IN_WINDOW}
)
SELECT allocation, variant, COUNT(*) AS tracks
FROM ranked WHERE place = 1
GROUP BY allocation, variant ORDER BY allocation, variant"""

_LAST_JUDGEMENTS = f"""
WITH ranked AS (
  SELECT variant, track, time, accepted, confidence, ROW_NUMBER() OVER (
    PARTITION BY enrichment_id, field ORDER BY time DESC, row_id DESC) AS place
  FROM {{{Table.OUTCOMES}}}
  WHERE {_IN_WINDOW}
), lasts AS (SELECT * FROM ranked WHERE place = 1)"""

REVIEWED = f"""{_LAST_JUDGEMENTS}, tracks AS (
  SELECT variant, track, DIV((UNIX_MICROS(MAX(time)) - @start), @width) AS period,
    COUNT(*) AS fields, SUM(CASE WHEN accepted THEN 1 ELSE 0 END) AS good
  FROM lasts GROUP BY variant, track
)
SELECT variant, period, COUNT(*) AS tracks,
  SUM(good * 1.0 / fields) AS accepted,
  SUM(good * 1.0 / fields * good / fields) AS accepted_squares,
  SUM(fields) AS field_count, SUM(good) AS accepted_fields
FROM tracks GROUP BY variant, period ORDER BY variant, period"""

RELIABILITY = f"""{_LAST_JUDGEMENTS}
SELECT variant,
  LEAST(CAST(FLOOR(confidence * {RELIABILITY_BINS}) AS INT64), {RELIABILITY_BINS - 1}) AS bin,
  COUNT(*) AS field_count, SUM(CASE WHEN accepted THEN 1 ELSE 0 END) AS accepted,
  SUM(confidence) AS confidence
FROM lasts GROUP BY variant, bin ORDER BY variant, bin"""

TRAFFIC = f"""
WITH ranked AS (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY row_id ORDER BY time) AS place
  FROM {{{Table.TRAFFIC}}}
)
SELECT row_id, UNIX_MICROS(time) AS time, experiment, variant, traffic, principal, reason,
  request_id, stopped
FROM ranked WHERE place = 1
ORDER BY time DESC, row_id DESC LIMIT 10000"""

OUTCOMES = f"""
WITH ranked AS (
  SELECT *, ROW_NUMBER() OVER (
    PARTITION BY enrichment_id, field ORDER BY time DESC, row_id DESC) AS place
  FROM {{{Table.OUTCOMES}}} WHERE time >= @time_from
)
SELECT row_id, UNIX_MICROS(time) AS time, enrichment_id, track, experiment, variant, model,
  model_version, prompt_version, field, verdict, accepted, confidence, source, reviewer, scores
FROM ranked WHERE place = 1
ORDER BY time, row_id"""

Ask = Callable[[str], Iterable[Record]]
"""Runs one of the statements with the window's parameters."""


def for_sqlite(statement: str) -> str:
    """Return a statement as SQLite takes it: times are integers there, and `/` of two is one."""
    names = {table: table for table in Table}
    text = statement.format(**names).replace("UNIX_MICROS(", "(").replace("LEAST(", "MIN(")
    return text.replace("DIV((", "((").replace("), @width)", ") / @width)")


JUDGED = (PERIODS, REVIEWED, ASSIGNED)
"""What a judgement needs."""

BINNED = (SECONDS, CONFIDENCE, RELIABILITY)
"""What a report shows besides."""


def tally(ask: Ask, *, bins: bool) -> Tally:
    """Return the counts that the statements find; `bins`: those of `BINNED` too."""
    return Tally(
        periods=[_period(found) for found in ask(PERIODS)],
        reviewed=[_reviewed(found) for found in ask(REVIEWED)],
        assigned=[
            Assigned(
                allocation=str(found["allocation"]),
                variant=str(found["variant"]),
                tracks=int(found["tracks"]),
            )
            for found in ask(ASSIGNED)
        ],
        seconds=_bins(ask(SECONDS), "tracks") if bins else (),
        confidence=_bins(ask(CONFIDENCE), "tracks") if bins else (),
        reliability=_bins(ask(RELIABILITY), "field_count") if bins else (),
    )


def traffic_rows(found: Sequence[Record]) -> list[analytics_pb2.TrafficRow]:
    """Return the changes of shares, the oldest first, from the newest first."""
    rows = []
    for record in reversed(found):
        row = analytics_pb2.TrafficRow()
        fill(row, record)
        rows.append(row)
    return rows


def _period(found: Record) -> Period:
    tracks = int(found["tracks"])
    successes = int(found["successes"])

    def sums(name: str, count: int) -> Sums:
        squares = float(found[f"{name}_squares"])
        return Sums(count=count, total=float(found[name]), squares=squares)

    return Period(
        variant=str(found["variant"]),
        period=int(found["period"]),
        success=Sums(count=tracks, total=float(successes), squares=float(successes)),
        confidence=sums("confidence", successes),
        seconds=sums("seconds", tracks),
        cost=sums("cost", tracks),
        agreement=sums("agreement", int(found["checked"])),
        fallbacks=int(found["fallbacks"]),
    )


def _reviewed(found: Record) -> Reviewed:
    return Reviewed(
        variant=str(found["variant"]),
        period=int(found["period"]),
        accepted=Sums(
            count=int(found["tracks"]),
            total=float(found["accepted"]),
            squares=float(found["accepted_squares"]),
        ),
        fields=int(found["field_count"]),
        accepted_fields=int(found["accepted_fields"]),
    )


def _bins(found: Iterable[Record], count: str) -> list[Bin]:
    return [
        Bin(
            variant=str(record["variant"]),
            bin=int(record["bin"]),
            count=int(record[count]),
            accepted=int(record.get("accepted", 0)),
            total=float(record.get("confidence", 0.0)),
        )
        for record in found
    ]
