"""Every metric Liner exports, in one place; names and labels are fixed by the contract.

No label holds what a user typed: models are configured names, operations method names, outcomes
and reasons come from our own error tree.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from liner.v1 import enrichment_pb2, queue_admin_pb2
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector
from py_grpc_prometheus import server_metrics

from liner_server import tracing
from liner_server.core.costs import Spent
from liner_server.core.enums import Priority
from liner_server.recent_confidence import RecentConfidence

LATENCY_BUCKETS = (0.1, 0.5, 1, 2, 5, 10)
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)


class Telemetry:
    """The metrics of one server, on a registry of their own so that tests may start many."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take a monotonic clock, in seconds."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        # py-grpc-prometheus serves only the synchronous server, so its definitions are taken and
        # filled by our own interceptor: dashboards made for it keep working.
        self._grpc: dict[str, Any] = server_metrics.init_metrics(self.registry)
        self.grpc_started: Counter = self._grpc["grpc_server_started_counter"]
        self.grpc_received: Counter = self._grpc["grpc_server_stream_msg_received"]
        self.grpc_sent: Counter = self._grpc["grpc_server_stream_msg_sent"]
        self.grpc_seconds: Histogram = self._grpc["grpc_server_handled_histogram"]
        self.grpc_handled: Counter = server_metrics.get_grpc_server_handled_counter(
            False,
            self.registry,
        )
        self.processing_latency = Histogram(
            "ai_processing_latency_seconds",
            "Time taken for AI processing",
            ("model", "operation"),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.requests = Counter(
            "ai_requests_total",
            "Tracks asked for, by how they ended",
            ("model", "operation", "outcome"),
            registry=self.registry,
        )
        self._recent_confidence = RecentConfidence(clock)
        self.registry.register(self._recent_confidence)
        self.confidence = Histogram(
            "ai_confidence_distribution",
            "Confidence of each answer",
            ("model",),
            buckets=CONFIDENCE_BUCKETS,
            registry=self.registry,
        )
        self.fallbacks = Counter(
            "ai_fallback_total",
            "Times another model was asked, and why",
            ("primary", "fallback", "reason"),
            registry=self.registry,
        )
        self.retries = Counter(
            "ai_retry_attempts_total",
            "Calls to a model made again after a failure",
            ("model",),
            registry=self.registry,
        )
        self.tokens = Counter(
            "ai_tokens_total",
            "Tokens that calls to a model consumed",
            ("model", "kind"),
            registry=self.registry,
        )
        self.cost = Counter(
            "ai_cost_usd_total",
            "Cost of calls to a model at the configured prices, US dollars",
            ("model",),
            registry=self.registry,
        )
        self.breaker_open = Gauge(
            "ai_breaker_open",
            "1 from the moment a model failed too often until a call to it succeeds",
            ("model",),
            registry=self.registry,
        )
        self.budget_spent = Gauge(
            "ai_budget_spent_ratio",
            "Part of the day's budget for models that is spent; 0 without a budget",
            registry=self.registry,
        )
        self.results = Counter(
            "liner_results_total",
            "Results and known answers that were to be stored, and whether they were",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self.retention = Counter(
            "retention_objects_total",
            "Objects that clean-ups looked at, by what became of them",
            ("outcome",),
            registry=self.registry,
        )
        self.queue_size = Gauge(
            "queue_size",
            "Messages on the queue, dead letters included",
            ("priority", "status"),
            registry=self.registry,
        )
        self.queue_oldest = Gauge(
            "liner_queue_oldest_seconds",
            "How long the oldest due message has waited; 0 when none is due",
            ("priority",),
            registry=self.registry,
        )
        self.queue_paused = Gauge(
            "liner_queue_paused",
            "1 while the queue hands out nothing",
            registry=self.registry,
        )
        self.jobs = Counter(
            "liner_queue_jobs_total",
            "Attempts at queued jobs, by how they ended",
            ("priority", "outcome"),
            registry=self.registry,
        )
        self.queue_concurrency = Gauge(
            "liner_queue_concurrency",
            "Jobs that may be worked on at once now, as the models' speed allows",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "liner_in_flight",
            "Enrichments and validations being worked on",
            registry=self.registry,
        )
        self.event_loop_lag = Gauge(
            "liner_event_loop_lag_seconds",
            "Longest time the event loop was late in the last second",
            registry=self.registry,
        )
        self.data_free = Gauge(
            "liner_data_free_bytes",
            "Room left on the disk of the data folder",
            registry=self.registry,
        )
        self.data_size = Gauge(
            "liner_data_size_bytes",
            "Size of the disk of the data folder",
            registry=self.registry,
        )
        self.file_refused = Gauge(
            "liner_file_refused",
            "1 while a watched file is not taken as it is, and its last good content is in force",
            ("file",),
            registry=self.registry,
        )
        self.analytics_rows = Counter(
            "analytics_rows_total",
            "Rows of answers and reviews: stored, spilled while the backend was down, or dropped",
            ("outcome",),
            registry=self.registry,
        )
        # There from the start, so that the first one dropped shows as an increase.
        for outcome in ("stored", "spilled", "dropped"):
            self.analytics_rows.labels(outcome)
        for kind in ("result", "answer"):
            for outcome in ("stored", "dropped"):
                self.results.labels(kind, outcome)
        self.analytics_backlog = Gauge(
            "analytics_backlog_rows",
            "Rows of answers and reviews that wait on the disk to be stored",
            registry=self.registry,
        )
        self.assignments = Counter(
            "experiment_assignments_total",
            "Tracks drawn for a variant of an experiment",
            ("experiment", "variant"),
            registry=self.registry,
        )
        self.guardrails = Gauge(
            "experiment_guardrail_stopped",
            "1 while a guardrail keeps a variant from getting tracks",
            ("experiment", "variant"),
            registry=self.registry,
        )
        self._assigned: dict[tuple[str, str], Counter] = {}

    def answered(self, model: str, operation: str, outcome: str, seconds: float) -> None:
        """Count one track and the time it took; `outcome` is "ok" or an error's reason."""
        self.requests.labels(model, operation, outcome).inc()
        self.processing_latency.labels(model, operation).observe(seconds, tracing.exemplar())

    def confident(self, model: str, confidence: float) -> None:
        """Count one answer's confidence."""
        self._recent_confidence.add(model, confidence)
        self.confidence.labels(model).observe(confidence)

    def watch_models(
        self, breakers: Mapping[str, Callable[[], bool]], budget_spent: Callable[[], float]
    ) -> None:
        """Show at each scrape whether a model's breaker is open, and what of the budget is spent.

        They are asked in another thread: they must only read.
        """
        for model, is_open in breakers.items():
            self.breaker_open.labels(model).set_function(is_open)
        self.budget_spent.set_function(budget_spent)

    def watch_file(self, name: str, refused: Callable[[], bool]) -> None:
        """Show at each scrape whether a file that is followed while the server runs is refused."""
        self.file_refused.labels(name).set_function(refused)

    def watch_disk(self, folder: Path) -> None:
        """Show at each scrape how full the disk of this folder is; not a number if it is gone."""

        def usage(part: str) -> float:
            try:
                return float(getattr(shutil.disk_usage(folder), part))
            except OSError:
                return math.nan

        self.data_free.set_function(lambda: usage("free"))
        self.data_size.set_function(lambda: usage("total"))

    def recorded(self, kind: str, outcome: str, count: int) -> None:
        """Count what was stored behind answers, or given up."""
        self.results.labels(kind, outcome).inc(count)

    def retained(self, outcome: str, count: int) -> None:
        """Count what a clean-up did with objects."""
        self.retention.labels(outcome).inc(count)

    def rows_counted(self, outcome: str, count: int) -> None:
        """Count rows of analytics."""
        self.analytics_rows.labels(outcome).inc(count)

    def rows_waiting(self, count: int) -> None:
        """Show how many rows of analytics wait."""
        self.analytics_backlog.set(count)

    def assigned(self, experiment: str, variant: str) -> None:
        """Count a track that was drawn; both names are configured ones."""
        counter = self._assigned.get((experiment, variant))
        if counter is None:
            counter = self.assignments.labels(experiment, variant)
            self._assigned[experiment, variant] = counter
        counter.inc()

    def guarded(self, experiment: str, variant: str, stopped: bool) -> None:
        """Show whether a guardrail keeps a variant stopped."""
        self.guardrails.labels(experiment, variant).set(stopped)

    def job_ended(self, priority: Priority, outcome: str) -> None:
        """Count an attempt at a queued job."""
        self.jobs.labels(_name_of(priority), outcome).inc()

    def counted(self, stats: queue_admin_pb2.QueueStats) -> None:
        """Show the queue's counts."""
        for entry in stats.priorities:
            name = _name_of(entry.priority)
            for status in ("ready", "delayed", "leased", "dead"):
                self.queue_size.labels(name, status).set(getattr(entry, status))
            waited = entry.oldest_ready_age.ToTimedelta().total_seconds()
            self.queue_oldest.labels(name).set(waited)
        self.queue_paused.set(stats.paused)

    def fell_back(self, primary: str, fallback: str, reason: str) -> None:
        """Count a question that went to another model."""
        self.fallbacks.labels(primary, fallback, reason).inc()

    def retried(self, model: str) -> None:
        """Count a call made again."""
        self.retries.labels(model).inc()

    def used(self, spent: Spent) -> None:
        """Count what a call consumed, whether its answer could be used or not."""
        self.tokens.labels(spent.provider, "prompt").inc(spent.usage.prompt_tokens)
        self.tokens.labels(spent.provider, "completion").inc(spent.usage.completion_tokens)
        self.cost.labels(spent.provider).inc(float(spent.usd))


def _name_of(priority: Priority) -> str:
    return enrichment_pb2.Priority.Name(priority).removeprefix("PRIORITY_").lower()
