"""The default guard: the source answers until the adapted model has earned trust."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.config import at_least, positive, whole
from acclimate.core.guard import Guard, Judgement, Keep, Look, guards
from acclimate.guard.signals import belief, sureness
from acclimate.parts.label_clusters import class_shares, label_novelty

__all__ = ["DefaultGuard"]

_CLASSES = 64
"""Classes that novelty is told by; of more, several count as one, so that what is kept stays small."""

_PACE = 0.3


@guards.register("default")
@dataclass(frozen=True, kw_only=True)
class DefaultGuard(Guard):
    """Believe the adapted model where an arbiter finds its answers likelier than the source's.

    On `share` of each batch, drawn at random, the source and the arbiter answer too. The arbiter has the source's
    weights over the batch's statistics in the first 0.7 of the batch norms (normalisation `shallow`): it has learned
    nothing, and clusters of labels mislead it little. With `p_r(y)` its belief in a label, and S an answer's sureness
    `1 - H / log C`, the batch's evidence is

        g = mean_b p_r(y_a) - p_r(y_s) - w (clustered + max(0, S(source) - S(adapted))),    w = min(1, x / clustered),
        e <- (1 - r) e + r g,    r = n / (n + memory)    for n rows.

    x is the novelty of the labels: how far the classes that the arbiter sees are from those it saw lately (a mean that
    each batch moves by 0.3, uniform at first). Where classes come and go, statistics of the batch mix up its classes,
    the arbiter's a little too, and answers become unsure; where they stay, a source that is sure of one class only is
    sure without cause.

    Without batch norms there is no arbiter and the adapted model begins as the source, which is then the only witness:
    `g = mean_b p_s(y_a) - p_s(y_s)`, its belief in the adapted label less that in its own, at most 0.

    The source answers a batch until `e > trust`, and again once `e < doubt`. While `e < doubt` nothing is learned, and
    after `patience` such batches in a row everything learned is forgotten. Without an arbiter the borders are
    `-leeway / 2` and `-leeway`: e is then what the changed answers cost by the source's own belief.

    Arguments: `memory` > 0, in rows of the source's answers; `trust` >= `doubt`, in units of accuracy; `leeway` > 0,
    likewise; `clustered` > 0; `patience` >= 1, in batches.
    Cost: `2 n / N` forwards of the batch, 0.16 with `share` 0.08; one more while the source answers. A second copy of
    the model's modules, of none of its weights.
    Source: ours; settings are chosen on validation streams (docs/guard.md).
    Fails where the arbiter is no better than the source: a shift of which shallow statistics know nothing.

    Example: `acclimate.adapt(net, "tent", guard="default")`.
    """

    share: float = 0.08
    least: int = 16
    memory: float = 40.0
    trust: float = -0.02
    doubt: float = -0.05
    leeway: float = 0.015
    clustered: float = 0.2
    patience: int = 10

    def check(self) -> None:
        positive(memory=self.memory, leeway=self.leeway, clustered=self.clustered)
        at_least(self.doubt, trust=self.trust)
        whole(1, patience=self.patience)

    def setup(self, keep: Keep) -> None:
        keep("evidence", torch.zeros(()))
        keep("trusted", torch.tensor(-1.0))
        keep("doubted", torch.zeros(()))
        keep("usual", torch.zeros(_CLASSES))

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        evidence, trusted, doubted = (float(kept[name]) for name in ("evidence", "trusted", "doubted"))
        if trusted < 0:  # the first batch tells what kind of model this is
            trusted = 0.0 if look.has_arbiter else 1.0
        trust, doubt = (self.trust, self.doubt) if look.has_arbiter else (-self.leeway / 2, -self.leeway)
        gain = self.gain(look, kept["usual"])
        rate = len(look.rows) / (len(look.rows) + self.memory)
        evidence += rate * (gain - evidence)
        trusted = float(evidence >= doubt if trusted else evidence > trust)
        learn = evidence >= doubt
        doubted = 0.0 if learn else doubted + 1
        forget = doubted >= self.patience
        if forget:
            doubted = 0.0
        for name, value in (("evidence", evidence), ("trusted", trusted), ("doubted", doubted)):
            kept[name].fill_(value)
        return Judgement(
            hold=not trusted,
            learn=learn,
            forget=float(forget),
            reason="" if trusted and learn else self._why(evidence, forget, learn),
            signals={"evidence": evidence, "gain": gain},
        )

    def gain(self, look: Look, usual: Tensor) -> float:
        """The evidence of one batch; moves the usual shares of classes."""
        adapted, source = look.adapted, look.source
        if not look.has_arbiter:
            return belief(source, adapted) - belief(source, source)
        shares = class_shares(look.arbiter, _CLASSES).to(usual)
        known = usual[: shares.shape[1]]
        if not usual.any():
            known.fill_(1 / len(known))
        novelty = max(0.0, float(label_novelty(shares, known)))
        known.lerp_(shares.mean(0), _PACE)
        believed = belief(look.arbiter, adapted) - belief(look.arbiter, source)
        unsure = max(0.0, sureness(source) - sureness(adapted))
        return believed - min(1.0, novelty / self.clustered) * (self.clustered + unsure)

    def _why(self, evidence: float, forget: bool, learn: bool) -> str:
        if forget:
            return f"doubted for {self.patience} batches, so what was learned is forgotten"
        told = "not yet better than the source" if learn else "worse than the source"
        return f"the adapted answers seem {told} (evidence {evidence:+.3f})"
