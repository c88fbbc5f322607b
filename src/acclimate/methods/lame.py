"""LAME: correct the answers of a batch by those of similar inputs; learn nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from acclimate.core.config import at_least, one_of, positive, whole
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import Normalization
from acclimate.core.state import State
from acclimate.parts.features import encode, require_head, unit

__all__ = ["LAME"]


@methods.register("lame")
@dataclass(frozen=True, kw_only=True)
class LAME(Method):
    """Let inputs of one batch whose features are alike agree on their classes; weights and statistics stay.

    From the source's probabilities p: `Y_0 = p`, `Y <- softmax(log(p + 1e-10) + strength * W Y)`, until the energy
    `E = sum(-Y log(p + 1e-10) - strength * Y (W Y_old) + Y log Y)` settles. The affinity W of the unit features
    is "rbf" `exp(-d^2 / 2s^2)`, s the mean distance to the k-th nearest (oneself the first); "knn" 1 for
    the k nearest others (not symmetric); or "linear", the cosine. The answer is log Y: its softmax is Y.

    Arguments: `kernel` "rbf" | "knn" | "linear"; `neighbours` k >= 1, for "rbf" >= 2 (tuned over 1, 3, 5); `strength`
    lambda > 0, published 1; `symmetric`, use (W + W^T) / 2; `iterations` >= 1, published 100; `tolerance` >= 0,
    relative, published 1e-8 (in float32: until the energy stands still).

    Cost: one forward and B x B numbers; no backward, no state, so `frozen()` answers the same.
    Raises ValueError if there is no linear layer that is fed one vector for each input.
    Source: Boudiaf et al., CVPR 2022. They tune kernel and k on validation streams; "rbf" and 5 are their code's.
    Fails on batches of independent labels, where it makes answers worse; a batch of one has nobody to agree with.

    Example: `acclimate.adapt(net, "lame:knn")`.
    """

    card: ClassVar[Card] = Card(
        summary="makes similar inputs of a batch agree on their classes, without learning",
        paper="Boudiaf et al., CVPR 2022",
        needs=frozenset({"linear head"}),
        batch_of_one="no effect",
        fails_when="labels within a batch are independent",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "rbf": {},
        "knn": {"kernel": "knn"},
        "linear": {"kernel": "linear"},
    }
    normalization: str | Normalization = "source"
    kernel: str = "rbf"
    neighbours: int = 5
    strength: float = 1.0
    symmetric: bool = False
    iterations: int = 100
    tolerance: float = 1e-8

    def check(self) -> None:
        one_of("rbf", "knn", "linear", kernel=self.kernel)
        whole(2 if self.kernel == "rbf" else 1, neighbours=self.neighbours)
        whole(1, iterations=self.iterations)
        at_least(0, tolerance=self.tolerance)
        positive(strength=self.strength)

    def setup(self, state: State) -> None:
        require_head(state)

    def step(self, state: State, x: Tensor) -> Tensor:
        return self.respond(state, x)

    @torch.no_grad()
    def respond(self, state: State, x: Tensor) -> Tensor:
        found, logits = encode(state, x)
        with torch.autocast(x.device.type, enabled=False):
            agreed, count = self._agree(self._affinity(unit(found)), logits)
        state.note(iterations=count)
        return agreed.to(logits.dtype)

    def plain(self) -> bool:
        return False

    def _affinity(self, rows: Tensor) -> Tensor:
        if self.kernel == "linear":
            return rows @ rows.T
        distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        if self.kernel == "rbf":
            reach = distance.kthvalue(min(self.neighbours, len(rows)), 1).values.mean().clamp_min(1e-6)
            affinity = torch.exp(-(distance**2) / (2 * reach**2))
        else:
            others = distance.fill_diagonal_(math.inf)
            nearest = others.topk(min(self.neighbours, len(rows) - 1), 1, largest=False).indices
            affinity = torch.zeros_like(distance).scatter_(1, nearest, 1.0)
        return (affinity + affinity.T) / 2 if self.symmetric else affinity

    def _agree(self, affinity: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """log Y after the iteration that settled, and how many there were; what comes after that changes nothing."""
        evidence = (logits.to(affinity.dtype).softmax(1) + 1e-10).log()
        answer, energy = evidence.log_softmax(1), evidence.new_tensor(math.inf)
        settled, count = torch.zeros_like(energy, dtype=torch.bool), torch.zeros_like(energy)
        for number in range(self.iterations):
            pull = self.strength * (affinity @ answer.exp())
            moved = (evidence + pull).log_softmax(1)
            lower = (moved.exp() * (moved.clamp_min(math.log(1e-20)) - evidence - pull)).sum()
            answer, count = torch.where(settled, answer, moved), count + ~settled
            if number > 1:
                settled = settled | ((lower - energy).abs() <= self.tolerance * energy.abs())
            energy = lower
            if _reading_is_free(settled) and settled:
                break
        return answer, count

    def cost(self) -> Cost:
        return Cost(forwards=1, backwards=0, bound=1)


def _reading_is_free(flag: Tensor) -> bool:
    """Whether to look if the iteration may end; on an accelerator the rest of it is cheaper than the wait."""
    return flag.device.type == "cpu"
