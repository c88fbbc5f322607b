"""RDumb's rule for any method: forget everything every so often."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.guard import Guard, Judgement, Look, guards
from acclimate.methods.rdumb import RDumb

__all__ = ["RDumbGuard"]


@guards.register("rdumb")
@dataclass(frozen=True, kw_only=True)
class RDumbGuard(Guard):
    """Forget everything after every `interval` batches, whatever they looked like.

    Blind, and yet the baseline that many methods do not beat on long streams: a collapse lasts no longer than that.

    Argument: `interval` >= 1 batches, published 1000. `share` and `least` are of no use here.
    Cost: no forward, no state.
    Source: Press et al., NeurIPS 2023. Around method `eta` it is method `rdumb`, answer for answer.
    Fails when domains last much longer than the interval, and when a collapse is quicker than it.

    Example: `acclimate.adapt(net, "tent", guard="rdumb")`.
    """

    interval: int = RDumb.reset_every

    def check(self) -> None:
        whole(1, interval=self.interval)

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        over = (look.batches + 1) % self.interval == 0
        reason = f"what was learned is forgotten every {self.interval} batches"
        return Judgement(forget=float(over), reason=reason if over else "")
