"""Where outcomes go: tables or JSON on standard output, progress on standard error."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any

from liner.v1 import enrichment_pb2
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from liner_client import render
from liner_client.records import batch_record


class OutputForm(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


class Output:
    """Writes results as they come and draws how far the work is.

    Data go to standard output and everything else to standard error. When both are the same
    terminal, both go through the console that draws the progress, so that neither tears the other.
    """

    def __init__(self, form: OutputForm, *, total: int, what: str, quiet: bool) -> None:
        self._form = form
        self._errors = render.console(stderr=True)
        self._live = self._errors.is_terminal and not quiet
        self._quiet = quiet
        out = render.console()
        self._data: Console = self._errors if self._live and out.is_terminal else out
        self._records: list[Mapping[str, Any]] = []
        self._what = what
        self._total = total
        self._done = 0
        self._reasons: Counter[str] = Counter()
        self._reviews = 0
        self._compared = enrichment_pb2.BatchSummary()
        self._began = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=self._errors,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self._live,
        )
        self._task = self._progress.add_task(what, total=total, note="")

    def __enter__(self) -> "Output":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if kind is None:
            self._finish()

    @property
    def failed(self) -> int:
        """How many results so far were failures."""
        return self._reasons.total()

    @property
    def contradicted(self) -> bool:
        """Whether inputs contradict each other in a way that a delivery would be refused for."""
        issues = (found.issue for found in self._compared.batch_issues)
        return any(issue.severity == enrichment_pb2.SEVERITY_ERROR for issue in issues)

    def note(self, text: str) -> None:
        """Show how the work stands, beside the bar."""
        self._progress.update(self._task, note=text)

    def add(
        self, record: Mapping[str, Any], block: Callable[[], RenderableType], *, failure: str = ""
    ) -> None:
        """Write one result: its record, or the block that is made only for people.

        `failure` is the reason it counts as failed, empty when it does not.
        """
        self._done += 1
        if failure:
            self._reasons[failure] += 1
        self._reviews += bool(record.get("needs_review"))
        match self._form:
            case OutputForm.TABLE:
                self._data.print(block())
            case OutputForm.JSONL:
                self._line(json.dumps(record, ensure_ascii=False))
            case OutputForm.JSON:
                self._records.append(record)
        self._progress.update(self._task, completed=self._done)

    def compare(self, summary: enrichment_pb2.BatchSummary) -> None:
        """Take what the inputs say against each other, to be written last."""
        self._compared = summary

    def _line(self, text: str) -> None:
        if self._data is self._errors:
            self._data.print(Text(text), soft_wrap=True)
            return
        # Bytes, so that a terminal's encoding decides nothing about a file.
        sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
        sys.stdout.buffer.flush()

    def _finish(self) -> None:
        if self._form is OutputForm.JSON:
            summary = {
                "total": self._done,
                "failed": self.failed,
                "failed_by_reason": dict(self._reasons),
            }
            document = {"tracks": self._records, "summary": summary}
            self._line(json.dumps(document | batch_record(self._compared), ensure_ascii=False))
        elif self._form is OutputForm.JSONL and self._compared.batch_issues:
            self._line(json.dumps(batch_record(self._compared), ensure_ascii=False))
        elif self._compared.batch_issues:
            self._data.print(render.batch_block(self._compared))
        if self._form is OutputForm.TABLE and self._what == "enriching":
            self._data.print(Text(render.LEGEND, "dim"))
        if not self._quiet:
            self._errors.print(self._summary())

    def _summary(self) -> Text:
        good = self._done - self.failed
        text = Text(f"{self._done} of {self._total}: {good} ok", "bold")
        if self._reviews:
            text.append(f" ({self._reviews} to review)", "yellow")
        if self.failed:
            reasons = ", ".join(f"{reason} {n}" for reason, n in self._reasons.most_common())
            text.append(f", {self.failed} failed ({reasons})", "red")
        contradictions = len(self._compared.batch_issues) + self._compared.batch_issues_omitted
        if contradictions:
            text.append(f", {contradictions} across the batch", "yellow")
        return text.append(f" in {time.monotonic() - self._began:.1f} s", "dim")
