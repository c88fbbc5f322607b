"""Numbers for Prometheus. Names, types and labels are an interface: none of them names a stream."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.server = Info("acclimate", "What is served", registry=registry)
        self.ready = Gauge("acclimate_ready", "1 while requests are taken", registry=registry)
        self.requests = Counter("acclimate_requests", "Requests by outcome", ("endpoint", "code"), registry=registry)
        self.rows = Counter("acclimate_rows", "Rows answered", ("by",), registry=registry)
        self.batches = Counter("acclimate_batches", "Forwards that answered requests", registry=registry)
        self.updates = Counter("acclimate_updates", "Batches offered to learning", ("outcome",), registry=registry)
        self.controls = Counter("acclimate_controls", "Control verbs that were executed", ("verb",), registry=registry)
        self.answer_seconds = Histogram(
            "acclimate_answer_seconds", "From reading a batch to its answer", registry=registry, buckets=_SECONDS
        )
        self.update_seconds = Histogram("acclimate_update_seconds", "One update", registry=registry, buckets=_SECONDS)
        self.persist_seconds = Histogram(
            "acclimate_persist_seconds", "Writing one version", registry=registry, buckets=_SECONDS
        )
        self.waiting = Gauge("acclimate_waiting", "Jobs that wait", ("queue",), registry=registry)
        self.streams = Gauge("acclimate_streams", "Streams by condition", ("state",), registry=registry)
        self.state_bytes = Gauge("acclimate_state_bytes", "Of all kept versions in memory", registry=registry)
        self.damaged = Counter("acclimate_damaged_files", "State files that were passed over", registry=registry)
        self.unwritten = Counter(
            "acclimate_write_failures", "Writes to the state folder that failed", registry=registry
        )

    def watch(self, gauge: Gauge, value: Callable[[], float], **labels: str) -> None:
        """Let a gauge read this value whenever it is asked."""
        (gauge.labels(**labels) if labels else gauge).set_function(value)
