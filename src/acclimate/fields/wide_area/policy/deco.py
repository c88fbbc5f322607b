"""DeCo: staleness and ratio together, so that no compute time is wasted and the noise is least."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from acclimate.core.config import between, one_of, positive, whole
from acclimate.fields.wide_area.policy.base import Policy
from acclimate.fields.wide_area.policy.conditions import Conditions, Setting
from acclimate.fields.wide_area.policy.contraction import FLOAT_BITS, contraction
from acclimate.fields.wide_area.policy.noise import NOISE, SHARE, Noise, tight

__all__ = ["DeCo"]


@dataclass(frozen=True, kw_only=True)
class DeCo(Policy):
    """Among settings that waste no compute time, the one of least noise. [S]

    With T, a, b, S of the conditions, the most that fits without a stall is
    `delta*(tau) = min(1, a T / S, a (tau T - b) / S)`, `tau > b / T`, and tau is the better of `floor(b / T) + 1` and
    `ceil(b / T) + 1` by `phi(delta_k, tau)`: closed, two candidates at most. [I]

    Where a cap binds, each tau within the caps gets the bytes that fit into the period it has anyway, or into `slack`
    more if it has to wait for the latency; the shortest period in tenths of T wins, then the least noise. [I] With
    `least_stale=0` that is asked as well where a synchronous dense step costs less than 5 % of T, and that step is
    taken.

    Arguments:
        noise: phi: "half", "note", "tight", or a function of contraction and staleness.
        objective: "lexi", time before noise, as above; or "tta", the least `P N` with
            `N = 1 + c1 sqrt(4 (1 - delta) / delta^2 + 2 tau r) + c2 (tau + 1 / delta)`, delta the contraction. [I]
        least: the smallest ratio, in (0, 1]; a link too slow for it makes iterations wait.
        least_stale, most_stale: caps of tau, 0 or more. The default of 8 is what is safe without a guard.
        slack: rho, 0 or more.
        bits_per_entry, value_bits: of a kept entry, and of its value alone; see `contraction`.
        count_indices: False takes indices as free: `value_bits` per kept entry.
        noise_share: r, of "tight" and "tta": 1 / n where workers have alike data.
        compression_weight, delay_weight: c1 and c2 of "tta".

    Raises:
        ValueError: an argument out of range.

    Source: DeCo-SGD (arXiv 2507.17346) for the aim; the exact rule of the paper is not public. Fails where the step
    size does not bear the staleness (see `Guard`), and on easy tasks takes more staleness than a small ratio needs.

    >>> gpt2 = Conditions(compute=0.5, bandwidth=1e8, latency=0.2, dense_bits=3.968e9)
    >>> found = DeCo(count_indices=False).decide(gpt2)
    >>> found.staleness, round(found.ratio, 5)
    (2, 0.0126)
    """

    name: ClassVar[str] = "deco"

    noise: str | Noise = "half"
    objective: str = "lexi"
    least: float = 1e-3
    least_stale: int = 1
    most_stale: int = 8
    slack: float = 0.1
    bits_per_entry: float = 64
    value_bits: int = 32
    count_indices: bool = True
    noise_share: float = SHARE
    compression_weight: float = 0.02
    delay_weight: float = 0.005

    def __post_init__(self) -> None:
        if not callable(self.noise):
            one_of(*NOISE, noise=self.noise)
        one_of("lexi", "tta", objective=self.objective)
        one_of(16, 32, value_bits=self.value_bits)
        whole(0, least_stale=self.least_stale)
        whole(self.least_stale, most_stale=self.most_stale)
        positive(least=self.least, bits_per_entry=self.bits_per_entry)
        between(0, self._densest, least=self.least)
        for name in ("slack", "noise_share", "compression_weight", "delay_weight"):
            between(0, 1e9, **{name: getattr(self, name)})

    @property
    def _densest(self) -> float:
        """More than the ratio of a dense message is never of use."""
        return self.value_bits / FLOAT_BITS

    @property
    def rounds_within(self) -> tuple[float, float]:
        return self.least, self._densest

    def decide(self, conditions: Conditions) -> Setting:
        return self._closed(conditions) or self._capped(conditions)

    def stalest(self) -> int:
        return self.most_stale

    def limited(self, most_stale: int) -> DeCo:
        return replace(self, most_stale=max(self.least_stale, min(self.most_stale, most_stale)))

    def keeping(self, staleness: int, conditions: Conditions) -> Setting:
        return Setting(staleness, self._ratio(staleness, conditions))

    def noise_of(self, setting: Setting) -> float:
        return self._phi(setting.ratio, setting.staleness)

    def _closed(self, conditions: Conditions) -> Setting | None:
        """The closed form; None where a cap binds."""
        compute, latency = conditions.compute, conditions.latency
        hidden = latency / compute
        if self.objective != "lexi" or hidden >= self.most_stale:
            return None
        first, last = math.floor(hidden) + 1, math.ceil(hidden) + 1
        rate = conditions.bandwidth / conditions.dense_bits
        if first < self.least_stale or last > self.most_stale:
            return None
        if self.least_stale == 0 and 1 / rate + latency < 0.05 * compute:
            return None
        chosen, best = None, math.inf
        for staleness in range(first, last + 1):
            ratio = min(self._densest, rate * compute, rate * (staleness * compute - latency))
            if ratio >= self.least and ((noise := self._phi(ratio, staleness)) < best or chosen is None):
                chosen, best = (staleness, ratio), noise
        return Setting(*chosen) if chosen else None

    def _capped(self, conditions: Conditions) -> Setting:
        hidden = min(conditions.latency / conditions.compute, self.most_stale)
        last = max(self.least_stale, min(self.most_stale, math.ceil(hidden) + 1))
        staleness, best, ratio, noise = last, math.inf, self.least, math.inf
        for each in range(last, self.least_stale - 1, -1):  # downwards time grows, so that few need their noise
            fits = self._ratio(each, conditions)
            if (time := self._time(each, fits, conditions)) > best:
                continue
            phi = self._phi(fits, each) if self.objective == "lexi" else 0.0
            if time < best or phi <= noise:
                staleness, best, ratio, noise = each, time, fits, phi
        return Setting(staleness, ratio)

    def _ratio(self, staleness: int, conditions: Conditions) -> float:
        compute, latency = conditions.compute, conditions.latency
        rate = conditions.bandwidth / conditions.dense_bits
        empty = max(compute, (compute + latency) / (staleness + 1))  # the period of messages without bits
        room = empty if staleness * compute > latency else (1 + self.slack) * empty
        fits = rate * min(room, room * (staleness + 1) - compute - latency)
        return min(self._densest, max(self.least, fits))

    def _time(self, staleness: int, ratio: float, conditions: Conditions) -> float:
        """What comes first: the period in tenths of T, or that times the iterations needed."""
        compute, sending = conditions.compute, ratio * conditions.dense_bits / conditions.bandwidth
        time = max(compute, sending, (compute + sending + conditions.latency) / (staleness + 1))
        if self.objective == "lexi":
            return round(time / compute, 1)
        kept = self._kept(ratio)
        spread = math.sqrt(tight(kept, staleness, self.noise_share))
        return time * (1 + self.compression_weight * spread + self.delay_weight * (staleness + 1 / kept))

    def _kept(self, ratio: float) -> float:
        counted = self.bits_per_entry if self.count_indices else self.value_bits
        return contraction(ratio, counted, self.value_bits)

    def _phi(self, ratio: float, staleness: int) -> float:
        kept = self._kept(ratio)
        if callable(self.noise):
            return self.noise(kept, staleness)
        return tight(kept, staleness, self.noise_share) if self.noise == "tight" else NOISE[self.noise](kept, staleness)
