"""ASR's rule for any method: forget the deepest weights when answers crowd into fewer classes than usual."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.config import at_least, below, positive
from acclimate.core.guard import Guard, Judgement, Keep, Look, guards
from acclimate.guard.reading import SIGNALS, note

__all__ = ["ASRGuard"]


@guards.register("asr")
@dataclass(frozen=True, kw_only=True)
class ASRGuard(Guard):
    """Forget only the weights nearest to the output, at the moment when answers crowd more than they used to.

    With K the concentration of the batch, `1 - H(mean_b p_b) / ln C`, and F the share of the rows that the source
    answers too which it names differently, `u = K + flips F`. Where `u` is above its running level `m` by the gap
    `g = u - m > margin`, the share `deepest - slope g` of the adapted tensors, held to [`smallest`, `deepest`] and
    rounded to one at least, goes back to the source, those nearest to the output first, with their moments. Then
    `m <- momentum m + (1 - momentum) u`; it begins at the first `u`.

    Arguments: `margin` >= 0, `flips` >= 0, in units of u, which is in [0, 1 + flips]; `momentum` in [0, 1);
    `deepest` and `smallest`, shares in (0, 1); `slope`, how much of the share a gap of 1 takes away; below 0 a wider
    gap forgets more, then up to 1 - `smallest`.
    Cost: `n / N` of a forward for n rows, 0.1 with `share` 0.1. Two numbers.
    Source: Lim et al., ICLR 2026 (arXiv 2603.03796), from a summary: that concentration against its own level and the
    flip rate trigger, and that the deepest share, which falls as the gap widens, is forgotten. Reconstructed, because
    not said there: how the two are added, the linear fall, and all defaults; left out: the recovery of important
    weights. No published number may be expected of it.
    Fails where the stream itself brings runs of few classes: then it forgets with each run.

    Example: `acclimate.adapt(net, "tent", guard="asr")`.
    """

    margin: float = 0.1
    flips: float = 1.0
    momentum: float = 0.9
    deepest: float = 0.5
    smallest: float = 0.1
    slope: float = 0.5

    def check(self) -> None:
        at_least(0, margin=self.margin, flips=self.flips, momentum=self.momentum)
        at_least(-math.inf, slope=self.slope)
        below(1, momentum=self.momentum)
        positive(smallest=self.smallest, deepest=self.deepest)
        if not 0 < self.smallest <= self.deepest < 1:
            raise ValueError(
                f"expected 0 < smallest <= deepest < 1, found {self.smallest!r} and {self.deepest!r}. "
                "To forget everything choose guard 'sar' or 'drift'."
            )

    def setup(self, keep: Keep) -> None:
        keep("level", torch.zeros(()))
        keep("known", torch.zeros(()))

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        crowding = SIGNALS["concentration"](look) + self.flips * SIGNALS["flips"](look)
        level = float(kept["level"]) if kept["known"] else crowding
        gap = crowding - level
        note(kept, level=self.momentum * level + (1 - self.momentum) * crowding, known=1.0)
        if gap <= self.margin:
            return Judgement(signals={"gap": gap})
        forget = self.forgotten(gap)
        return Judgement(
            forget=forget,
            reason=f"answers crowd by {gap:.3f} more than usual, so the deepest {forget:.0%} is forgotten",
            signals={"gap": gap},
        )

    def forgotten(self, gap: float) -> float:
        """The share that is forgotten at this gap."""
        most = self.deepest if self.slope >= 0 else 1 - self.smallest
        return min(max(self.deepest - self.slope * gap, self.smallest), most)
