"""Numbers of several workers on one page: each worker's own, with its number as a label, and the front's.

They are not summed: a worker that is started again counts from zero, and only apart from the others does Prometheus
see that for what it is. `sum without (worker) (...)` gives what one server would tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from acclimate.serve.backend import Backend

__all__ = ["FrontMetrics"]


class FrontMetrics:
    """Of one front over these workers."""

    def __init__(self, workers: Sequence[Backend]) -> None:
        self._workers = workers
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "acclimate_front_requests", "What the front answered", ("endpoint", "code"), registry=self._registry
        )
        self._registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """What it knows of its workers."""
        up = GaugeMetricFamily("acclimate_worker_ready", "1 while a worker takes requests", labels=["worker"])
        starts = CounterMetricFamily("acclimate_worker_starts", "Starts of a worker", labels=["worker"])
        for worker in self._workers:
            up.add_metric([str(worker.number)], float(worker.ready))
            starts.add_metric([str(worker.number)], worker.starts)
        return up, starts

    def joined(self, texts: Mapping[str, str]) -> bytes:
        """One page of the pages of the workers that answered, by their numbers, and of the front's own numbers."""
        families: dict[str, Metric] = {}
        for worker, text in texts.items():
            for found in text_string_to_metric_families(text):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.samples.append(sample._replace(labels={**sample.labels, "worker": worker}))
        return generate_latest(self._registry) + generate_latest(_Families(families))


class _Families(CollectorRegistry):
    def __init__(self, families: Mapping[str, Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()
