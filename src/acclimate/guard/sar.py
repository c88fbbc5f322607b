"""SAR's rule for any method: forget everything when the loss has become suspiciously small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.config import at_least, below, between
from acclimate.core.guard import Guard, Judgement, Keep, Look, guards
from acclimate.guard.reading import loss, note
from acclimate.methods.sar import SAR

__all__ = ["SARGuard"]


@guards.register("sar")
@dataclass(frozen=True, kw_only=True)
class SARGuard(Guard):
    """Forget everything once the moving mean of the loss says that nearly every answer is certain.

    With `l` the step's loss as a share of ln C, or the mean entropy of the answers where the method says no loss,
    `m <- momentum m + (1 - momentum) l`, beginning at the first `l`. When `m < recovery` everything learned is
    forgotten, that batch included, and m begins anew.

    Arguments: `recovery` in [0, 1] of ln C: the published 0.2 nats for 1000 classes are 0.029 ln C, for ten classes
    0.067 nats; 0 never forgets; `momentum` in [0, 1), published 0.9. `share` and `least` are of no use here.
    Cost: no forward. Two numbers.
    Source: Niu et al., ICLR 2023. Their code keeps m after a reset, so that resets repeat; here it begins anew.
    Fails where the loss is no entropy (it may then be small, or below 0, in the best of health), and where a model has
    collapsed without becoming sure. A clean stream of easy images is taken for a collapse.

    Example: `acclimate.adapt(net, "tent", guard="sar")`.
    """

    recovery: float = SAR.recovery
    momentum: float = 0.9

    def check(self) -> None:
        between(0, 1, recovery=self.recovery)
        at_least(0, momentum=self.momentum)
        below(1, momentum=self.momentum)

    def setup(self, keep: Keep) -> None:
        keep("mean", torch.zeros(()))
        keep("known", torch.zeros(()))

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        mean = found = loss(look)
        if kept["known"]:
            mean = self.momentum * float(kept["mean"]) + (1 - self.momentum) * found
        collapsed = mean < self.recovery
        note(kept, mean=0.0 if collapsed else mean, known=float(not collapsed))
        return Judgement(
            forget=float(collapsed),
            reason=f"the mean loss fell to {mean:.4f} ln C, so what was learned is forgotten" if collapsed else "",
            signals={"mean_loss": mean},
        )
