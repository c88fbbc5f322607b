"""Where training takes place: links, latencies, workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from acclimate.core.config import one_of, positive, whole
from acclimate.fields.wide_area.policy.conditions import Conditions
from acclimate.links.trace import Trace
from acclimate.links.traces import constant, markov, sine, step_drop, uniform

__all__ = ["TRACES", "Place"]

TRACES: Mapping[str, Callable[[float, int], Trace]] = {
    "constant": lambda mean, seed: constant(mean),
    "sine": lambda mean, seed: sine(mean, amplitude=0.8, period=30.0),
    "markov": lambda mean, seed: markov(1.6 * mean, 0.2 * mean, stay_high=10.0, stay_low=7.5, seed=seed),
    "uniform": lambda mean, seed: uniform(0.2 * mean, 1.8 * mean, every=5.0, seed=seed),
    "drop": lambda mean, seed: step_drop(mean, at=10.0, share=0.1, seconds=20.0),
}
"""By kind, from mean bandwidth and seed; `drop` falls to a tenth from the tenth to the thirtieth second."""

_SPAN = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Links as multiples of what a task needs, so that places mean the same for small and large models.

    Arguments:
        trace: of `TRACES`.
        dense: `S_g / (a T)`, iterations' computing times that a dense gradient takes on the mean link.
        away: `b / T`, those that the latency takes.
        compute: T, seconds.
        workers: n.
        shards: "iid" or "sorted".
    """

    trace: str = "constant"
    dense: float = 8.0
    away: float = 2.0
    compute: float = 0.05
    workers: int = 4
    shards: str = "iid"

    def __post_init__(self) -> None:
        one_of(*TRACES, trace=self.trace)
        positive(dense=self.dense, away=self.away, compute=self.compute)
        whole(1, workers=self.workers)

    @property
    def latency(self) -> float:
        """b, seconds."""
        return self.away * self.compute

    def bandwidth(self, dense_bits: float) -> float:
        """Mean a, bit/s, for a gradient of so many bits."""
        return dense_bits / (self.dense * self.compute)

    def link(self, dense_bits: float, *, cheaper: float = 1.0, seed: int = 0) -> Trace:
        """Bandwidth over time; `cheaper` times as much."""
        return TRACES[self.trace](cheaper * self.bandwidth(dense_bits), seed)

    def at_mean(self, dense_bits: float, seed: int = 0) -> Conditions:
        """What a policy sees that knows the mean over five minutes."""
        mean = self.link(dense_bits, seed=seed).mean(0.0, _SPAN)
        return Conditions(self.compute, mean, self.latency, dense_bits)

    def named(self) -> str:
        """In a few words."""
        told = f"{self.trace}, S/(aT) {self.dense:g}, b/T {self.away:g}"
        return told + (", sorted shards" if self.shards == "sorted" else "")
