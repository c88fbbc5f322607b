"""Arms in turn, round after round, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

__all__ = ["in_turn", "median_and_quartiles"]

WARM_UP = 2


def in_turn(
    arms: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each arm in each round, after two rounds that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + WARM_UP):
        for name, arm in arms.items():
            start = clock()
            arm()
            if number >= WARM_UP:
                times[name].append(clock() - start)
    return times


def median_and_quartiles(values: Sequence[float]) -> tuple[float, str]:
    """The median, and the quartiles in words."""
    low, _, high = statistics.quantiles(values, n=4)
    return statistics.median(values), f"{low:.2f}..{high:.2f}"
