"""Page-Hinkley: sums of deviations from the mean so far, against their own extreme."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.core.config import at_least, between, one_of, whole
from acclimate.guard.detectors.detector import Detector, detectors

__all__ = ["PageHinkley"]

_COUNT, _MEAN, _RISE, _LOWEST, _FALL, _HIGHEST, _FOUND = range(7)


@detectors.register("page-hinkley")
@dataclass(frozen=True, kw_only=True)
class PageHinkley(Detector):
    """A change of the mean, by the test of Page (Biometrika 1954) and Hinkley with a fading sum.

    With the mean of all values so far, `m_t`, the rise is `U_t = alpha U_{t-1} + x_t - m_t - delta` and stands above
    its lowest value by `U_t - min U`; likewise `D_t = alpha D_{t-1} + x_t - m_t + delta` stands below its highest.
    More than `threshold` is a change. After a change the next value begins anew.

    Arguments: `min_instances` >= 1, values before a first verdict; `delta` >= 0, the change per value that is let
    pass, and `threshold` >= 0, both in units of the values; `alpha` in [0, 1], how much of a sum stays; `mode`, "up",
    "down" or "both". The defaults are those of river. Cost: O(1), seven numbers. Fails where changes are small next to
    `delta`, or come so slowly that the mean goes along; it has no bound on false alarms.

    >>> detector = PageHinkley(threshold=5.0)
    >>> state = detector.initial()
    >>> [t for t in range(200) if detector.update(state, float(t >= 100))]
    [105]
    """

    min_instances: int = 30
    delta: float = 0.005
    threshold: float = 50.0
    alpha: float = 0.9999
    mode: str = "both"

    def __post_init__(self) -> None:
        whole(1, min_instances=self.min_instances)
        at_least(0, delta=self.delta, threshold=self.threshold)
        between(0, 1, alpha=self.alpha)
        one_of("up", "down", "both", mode=self.mode)

    @property
    def size(self) -> int:
        return 7

    def _take(self, numbers: memoryview[float], value: float) -> bool:
        if numbers[_FOUND]:
            for place in range(self.size):
                numbers[place] = 0.0
        count = numbers[_COUNT] + 1
        mean = numbers[_MEAN] + (value - numbers[_MEAN]) / count
        rise = self.alpha * numbers[_RISE] + value - mean - self.delta
        fall = self.alpha * numbers[_FALL] + value - mean + self.delta
        lowest, highest = min(numbers[_LOWEST], rise), max(numbers[_HIGHEST], fall)
        up = self.mode != "down" and rise - lowest > self.threshold
        down = self.mode != "up" and highest - fall > self.threshold
        found = count >= self.min_instances and (up or down)
        for place, number in enumerate((count, mean, rise, lowest, fall, highest, float(found))):
            numbers[place] = number
        return found
