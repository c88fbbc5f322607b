"""How long members take."""

from __future__ import annotations

import time
from statistics import median

import torch

from acclimate.fields.recommendation.reproduction.members import Member, Stock
from acclimate.models.threads import one_thread

__all__ = ["Clock"]

_ROWS, _WARM, _TIMES = 1000, 5, 40


class Clock:
    """Times forwards of a thousand test rows on one thread, each configuration once."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._known: dict[str, float] = {}

    def seconds(self, member: Member) -> float:
        """For one row, the median of forty batches."""
        order = member.order
        key = f"{order.model} {order.width} {order.options}"
        if key not in self._known:
            self._known[key] = self._timed(member)
        return self._known[key]

    @torch.inference_mode()
    def _timed(self, member: Member) -> float:
        model, ids = self._stock.model(member.order), self._stock.split.test.ids[:_ROWS]
        found: list[float] = []
        with one_thread():
            for _ in range(_WARM + _TIMES):
                start = time.perf_counter()
                model(ids)
                found.append(time.perf_counter() - start)
        return median(found[_WARM:]) / len(ids)
