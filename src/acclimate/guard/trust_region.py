"""No further from the source than a radius: steps that would leave it are shortened."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from acclimate.core.config import positive
from acclimate.core.guard import Guard, Judgement, Look, guards

__all__ = ["TrustRegion"]

_ROUNDING = 1e-6


@guards.register("trust_region")
@dataclass(frozen=True, kw_only=True)
class TrustRegion(Guard):
    """Keep of each step the largest share that leaves the weights within `radius` of the source.

    With s the source's weights, w those before the step, w + d those after it, all adapted tensors as one vector, and
    `R = radius ||s||`: a step with `||w + d - s|| <= R` is kept whole. Of another the share t is kept for which
    `||w + t d - s|| = R`, the larger root of `||d||^2 t^2 + 2 <w - s, d> t + ||w - s||^2 - R^2 = 0`, a millionth
    inside for the sake of rounding. Where w is at the border or outside, no share would do, and the step is undone.

    Argument: `radius` > 0, as a share of the norm of the source's adapted weights. `share` and `least` are of no use.
    Cost: no forward, three norms of the weights; no state.
    Source: a trust region with backtracking along the step; as a guard, ours.
    Fails at the border: there only steps that lead inwards are kept, so learning comes to rest. Statistics and what a
    method keeps beside weights are not bounded; where a teacher answers, it is the teacher that is.

    Example: `acclimate.adapt(net, "tent", guard="trust_region")`.
    """

    radius: float = 0.1

    def check(self) -> None:
        positive(radius=self.radius)

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        if look.frozen:
            return Judgement()
        before, after, _ = look.travel
        signals = {"distance": after}
        if after <= self.radius:
            return Judgement(signals=signals)
        if before >= self.radius * (1 - _ROUNDING):
            return Judgement(
                learn=False, reason=f"the border, {self.radius} from the source, is reached", signals=signals
            )
        share = self.kept(*look.travel)
        return Judgement(shrink=share, reason=f"only {share:.1%} of the step is within the border", signals=signals)

    def kept(self, before: float, after: float, length: float) -> float:
        """The share of a step of this length, from inside to outside, that ends at the border."""
        square = length**2
        along = after**2 - before**2 - square  # 2 <w - s, d>, by the law of cosines
        inside = (self.radius * (1 - _ROUNDING)) ** 2 - before**2
        root = math.sqrt(along**2 + 4 * square * inside)
        return min(1.0, 2 * inside / (root + along) if along > 0 else (root - along) / (2 * square))
