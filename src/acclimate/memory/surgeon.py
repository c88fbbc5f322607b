"""SURGEON: what backward keeps of each layer's input follows how much the layer has to learn, and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor

from acclimate.compression import Codec, Sparse
from acclimate.core.config import between, one_of, positive, whole, whole_or_none
from acclimate.core.memory import Chooser, Saved, policies
from acclimate.functional import entropy
from acclimate.memory.quantized import QuantizedSavings

if TYPE_CHECKING:
    from acclimate.core.state import State
    from acclimate.memory.keeper import Keeper

__all__ = ["SurgeonSavings"]


@policies.register("surgeon")
@dataclass(frozen=True, kw_only=True)
class SurgeonSavings(QuantizedSavings):
    """Of each convolution's or linear layer's input keep the largest values, the more the more important the layer is.

    On some samples of each batch a probe (a forward and a backward of the entropy) finds for every layer that learns
    `G_i = ||grad W_i|| / sqrt(|W_i|)` and `M_i = -ln(m_i / sum_j m_j)`, m the size of its input; the layer keeps the
    share `k_i = min(1, scale G_i M_i / max_j G_j M_j)` of its input's values for the gradient of its weight. Gradients
    of activations do not depend on what is left out, so no other layer is touched. Inputs of normalisations are
    quantised instead, signs of ReLUs kept in bits: see `quantized` and `exact`, which this policy extends.

    Arguments: `probe`, how many samples, by default a twentieth of the batch, from 1 to 10; `probe_keep` in (0, 1],
    what is kept of every input while probing; `refresh` >= 1, batches between probes; `gradient_importance` and
    `memory_importance`, whether G and M count; `scale` > 0; `values`, number type of what is kept: "bfloat16",
    "float16", "float32" or "int8"; `share`, a fixed share for all layers instead of the probe; `limit`, bytes per
    sample that inputs of layers may take in one forward, above which all shares are lowered by one factor; `norms`,
    `curves`, `depth` as in `quantized`.

    Cost: for the probe, `probe / batch` of a forward and of a backward, and one host read; one number for each layer.
    Where no gradient is finite, or all are zero, the last shares are used again (1 at first).
    Source: Ma et al., SURGEON, CVPR 2025 (arXiv 2503.20354). There is no probe in a batch without samples to spare.
    """

    probe: int | None = None
    probe_keep: float = 0.1
    refresh: int = 1
    gradient_importance: bool = True
    memory_importance: bool = True
    scale: float = 1.0
    values: Literal["bfloat16", "float16", "float32", "int8"] = "bfloat16"
    share: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_or_none(1, probe=self.probe)
        whole(1, refresh=self.refresh)
        positive(scale=self.scale, probe_keep=self.probe_keep, limit=1 if self.limit is None else self.limit)
        between(0, 1, probe_keep=self.probe_keep, share=1.0 if self.share is None else self.share)
        one_of("bfloat16", "float16", "float32", "int8", values=self.values)

    def setup(self, state: State) -> None:
        super().setup(state)
        if self.share is None and state.weights:
            layers = next(iter(state.weights.values())).new_ones(len(state.weights), dtype=torch.float32)
            state.table.declare("memory.shares", layers, initial=1.0, kind="statistics")
            state.table.declare("memory.probed", layers.new_zeros(()), initial=0.0, kind="statistics", merge="max")
            state.generator("memory.probe")

    def begin(self, state: State, x: Tensor, keeper: Keeper) -> Chooser:
        if self.share is not None:
            shares = dict.fromkeys(state.weights, self.share)
            return lambda saved: self._choose(saved, shares)
        kept = state.table.slots["memory.shares"].tensor
        known = state.table.slots["memory.probed"].tensor
        due = state.batches % self.refresh == 0 or not bool(known)  # restarts and idle steps forget the shares
        sizes = self._probe(state, x, keeper, kept) if len(x) and due else {}
        if due:
            known.fill_(1.0)
        shares = dict(zip(state.weights, kept.tolist(), strict=True))
        keeper.planned = self._bytes(shares, sizes, 1.0)
        if self.limit is not None and keeper.planned > self.limit * len(x):
            factor = self._factor(shares, sizes, self.limit * len(x))
            kept.mul_(factor)
            shares = {name: share * factor for name, share in shares.items()}
            keeper.planned = self._bytes(shares, sizes, 1.0)
        state.detail("share", kept.clone(), state.weights)
        return lambda saved: self._choose(saved, shares)

    def _choose(self, saved: Saved, shares: dict[str, float]) -> Codec:
        if saved.family == "weighted" and saved.role == "input" and saved.learns():
            return Sparse(keep=shares.get(saved.layer, 1.0), values=self.values)
        return self.choose(saved)

    def held_to(self, planned: float) -> Self:
        return replace(self, limit=planned) if planned > 0 and self.share is None else self

    def _bytes(self, shares: dict[str, float], sizes: dict[str, int], factor: float) -> int:
        """The most that inputs of these sizes take if all shares are lowered by a factor."""
        kept = {name: Sparse(keep=shares[name] * factor, values=self.values) for name in sizes if name in shares}
        return sum(codec.size((sizes[name],), torch.float32) for name, codec in kept.items())

    def _factor(self, shares: dict[str, float], sizes: dict[str, int], limit: float) -> float:
        """The largest factor, to a 2^-16, with which they take no more than so many bytes."""
        low, high = 0.0, 1.0
        for _ in range(16):
            middle = (low + high) / 2
            low, high = (middle, high) if self._bytes(shares, sizes, middle) <= limit else (low, middle)
        return low

    def passes(self, samples: int) -> tuple[float, int]:
        return (0.0, 0) if self.share is not None else (self.samples(samples) / samples, 1)

    def samples(self, batch: int) -> int:
        """How many of a batch are probed."""
        return min(batch, self.probe or max(1, min(10, math.ceil(0.05 * batch))))

    def _probe(self, state: State, x: Tensor, keeper: Keeper, kept: Tensor) -> dict[str, int]:
        """Renew the shares; gives the size of each layer's input for the whole batch, by weight."""
        at = torch.randperm(len(x), generator=state.generator("memory.probe"))[: self.samples(len(x))].to(x.device)
        shares = dict.fromkeys(state.weights, self.probe_keep)
        with keeper.choosing(lambda saved: self._choose(saved, shares)) as inputs:
            logits = state.forward(x[at], answering=False, rows=at)
            if not logits.requires_grad:
                return {}  # the method's own step says what is wrong
            learning = {name: weight for name, weight in state.weights.items() if weight.requires_grad}
            found = torch.autograd.grad(
                entropy(logits).mean(), list(learning.values()), allow_unused=True, materialize_grads=True
            )
        state.backwards += 1
        with torch.no_grad():
            strength = dict(zip(learning, (gradient.float().square().mean().sqrt() for gradient in found), strict=True))
            importance = torch.stack([strength.get(name, kept.new_zeros(())) for name in state.weights])
            sizes = torch.tensor([float(inputs.get(name, 0)) for name in state.weights], device=x.device)
            kept.copy_(self._shares(importance, sizes, kept))
        return {name: size * len(x) // len(at) for name, size in inputs.items() if state.weights[name].ndim > 1}

    def _shares(self, importance: Tensor, sizes: Tensor, before: Tensor) -> Tensor:
        """Each tensor's share, from the root mean square of its gradient and the size of its layer's input."""
        if not self.gradient_importance:
            importance = torch.ones_like(importance)
        if self.memory_importance:
            costs = -(sizes / sizes.sum()).log()
            importance = torch.where((sizes > 0).sum() > 1, importance * costs, importance)
        importance = torch.where(sizes > 0, importance, 0.0)
        highest = importance.max()
        shares = (self.scale * importance / highest).clamp(0, 1)
        return torch.where((highest > 0) & highest.isfinite() & shares.isfinite().all(), shares, before)
