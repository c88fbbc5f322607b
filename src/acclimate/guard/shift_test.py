"""Adapt only while a shift is real: an anytime-valid test on the source's own uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.guard import Guard, Judgement, Keep, Look, guards
from acclimate.functional import entropy
from acclimate.guard.martingale import ReferenceMartingale
from acclimate.guard.reading import note
from acclimate.guard.signals import flat

__all__ = ["ShiftTest"]


@guards.register("betting")
@dataclass(frozen=True, kw_only=True)
class ShiftTest(Guard):
    """The source answers, and nothing is learned, until bets on its entropies have won `1 / alpha`.

    Scores are entropies of the source's answers to the rows that it answers too, means over positions where there are
    several. `ReferenceMartingale` bets that they rank otherwise than a reference sample does: `reference`, or else the
    first `calibration` scores of the stream itself. Once its capital reaches `1 / alpha` the shift counts as real, and
    the adapted model answers and learns, that batch already. On a stream that stays as the reference is, this ever
    happens with probability at most `alpha` (without `restart`).

    With `restart` the test begins anew after each verdict, and after `patience` scores without another one the shift
    counts as over: what was learned is forgotten and the source answers again. False verdicts are then at least
    `1 / alpha` batches apart in the mean, and each costs `patience` scores. Without, a verdict is for good.

    Arguments: `alpha` in (0, 1); `direction`, "up" where only more entropy is a shift, "down" or "both"; `restart`;
    `calibration`, scores of the reference, at least 5 for the default alpha and better some hundreds; `patience` >= 1,
    in scores, here those of 20 batches of 200 rows: too few to show a small shift once more would end it; `reference`,
    a tensor of scores: entropies in nats of the source on images like those it was trained on, one each; `calibration`
    is then their number. It is not recorded, but state files hold it.
    Cost: `n / N` of a forward for n rows, and one more while the source answers. `2 calibration + 27` numbers.
    Source: Bar et al., NeurIPS 2024, which bets on the source's entropies; the bets are `ReferenceMartingale`'s, and
    what they decide is ours.
    Fails where the stream begins shifted and no `reference` is given, where rows depend on each other (video, sorted
    labels), which is taken for a shift, and where a shift leaves the source as sure as it was.

    Example: `acclimate.adapt(net, "tent", guard="betting")`.
    """

    alpha: float = 0.01
    direction: str = "both"
    restart: bool = True
    calibration: int = 200
    patience: int = 400
    reference: Any = field(default=None, repr=False, compare=False, metadata={"recorded": False})

    def check(self) -> None:
        whole(1, patience=self.patience, calibration=self.calibration)
        if self.reference is not None:
            object.__setattr__(self, "calibration", torch.as_tensor(self.reference).numel())
        self.test.reference(torch.zeros(self.calibration) if self.reference is None else self.reference)

    @property
    def test(self) -> ReferenceMartingale:
        """The test, without its state."""
        return ReferenceMartingale(alpha=self.alpha, direction=self.direction, restart=self.restart)

    def setup(self, keep: Keep) -> None:
        given = self.reference is not None
        scores = torch.zeros(self.calibration)
        keep("given", self.test.reference(self.reference) if given else scores, fixed=True)
        keep("is_given", torch.tensor(float(given)), fixed=True)
        keep("beginning", scores)
        keep("count", torch.zeros(()))
        keep("test", self.test.initial())
        keep("real", torch.zeros(()))
        keep("calm", torch.zeros(()))

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        real, calm = bool(kept["real"]), float(kept["calm"])
        if look.frozen:
            return Judgement(hold=not real)
        values = self._calibrate(_scores(look.source), kept)
        known = self.calibration if kept["is_given"] else int(kept["count"])
        found = False
        if known == self.calibration and len(values):
            found = self.test.update(kept["test"], values, kept["given" if kept["is_given"] else "beginning"])
        calm = 0.0 if found or not real else calm + len(values)
        over = self.restart and calm >= self.patience
        real = (real or found) and not over
        note(kept, real=float(real), calm=0.0 if over else calm)
        return Judgement(
            hold=not real,
            learn=real,
            forget=float(over),
            reason="" if real else self._why(known, over),
            signals={"bets": self.test.evidence(kept["test"]), "shifted": float(real)},
        )

    def _calibrate(self, values: Tensor, kept: dict[str, Tensor]) -> Tensor:
        """Put scores into the reference as long as it is short of some; gives the others."""
        count = int(kept["count"])
        room = 0 if kept["is_given"] else self.calibration - count
        if room:
            taken, values = values[:room], values[room:]
            kept["beginning"][count : count + len(taken)] = taken
            note(kept, count=float(count + len(taken)))
            if len(taken) == room:
                kept["beginning"].copy_(self.test.reference(kept["beginning"]))
        return values

    def _why(self, known: int, over: bool) -> str:
        if over:
            return f"no sign of a shift in {self.patience} scores, so what was learned is forgotten"
        if known < self.calibration:
            return f"the reference is not complete, {known} of {self.calibration} scores"
        return "no shift has been shown"


def _scores(logits: Tensor) -> Tensor:
    """One for each row that has a finite one, float64 on the CPU."""
    found = entropy(flat(logits)).to("cpu", torch.float64).reshape(len(logits), -1).mean(1)
    return found[found.isfinite()]
