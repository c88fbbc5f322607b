"""SURGEON: what backward keeps of each layer's input follows how much the layer has to learn, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from acclimate.compression import Codec, Sparse
from acclimate.core.config import between, one_of, positive, whole, whole_or_none
from acclimate.core.memory import Chooser, Saved, policies
from acclimate.functional import entropy
from acclimate.memory.faithful import Released
from acclimate.memory.quantized import QuantizedSavings
from acclimate.memory.stock import as_it_is

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
    what is kept of every input while probing, by default a tenth, except where no more than a twentieth of the batch is
    probed: then all is kept as it is, which takes less than the step itself; `refresh` >= 1, batches between probes;
    `gradient_importance` and `memory_importance`, whether G and M count; `scale` > 0; `values`, number type of what is
    kept: "bfloat16", "float16", "float32" or "int8"; `share`, a fixed share for all layers instead of the probe;
    `limit`, bytes per sample that inputs of layers may take in one forward, above which all shares are lowered by one
    factor; `norms`, `curves`, `depth` as in `quantized`.

    `faithful`, preset "faithful", does as the released code where that differs from the paper. G has the last step's
    gradient added, where the method keeps it. M is listed for all convolutions, batch norms and linear layers and given
    to the weights with gradients by position: where normalisations alone learn, to the wrong ones. Inputs of all three,
    also those that are not learned, keep shares of their values in full width with int32 indices; batch norms keep the
    whole input beside, normalise the pruned one by its own mean and deviation for the gradient of their weight, and go
    back through `y = w (n sigma / sigma_run + (mu - mu_run) / sigma_run) + b`, statistics constant, "run" the source's
    (there: moved by each forward). The probe takes 10 samples and keeps everything; ReLUs and all else stay whole, so
    that more is held than PyTorch would. `probe_keep`, `values`, `norms`, `curves` are then not looked at. There is no
    counterpart of the probe's graph that outlives it, of gradients computed for frozen layers and thrown away, and of
    NaN where no sample is sure; tensors below 4,096 values are not pruned.

    A step that probes leaves, for each adapted tensor, details "gradient_importance" (G) and "memory_importance" (M)
    beside "share"; `memory_report` shows them.

    Cost: for the probe, `probe / batch` of a forward and of a backward, and one host read; one number for each layer.
    There is no probe where only vectors learn (normalisations, biases), whose shares nothing would use.
    Where no gradient is finite, or all are zero, the last shares are used again (1 at first).
    Raises ValueError for `limit` with `faithful`.
    Source: Ma et al., SURGEON, CVPR 2025 (arXiv 2503.20354).
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"faithful": {"faithful": True}}
    probe: int | None = None
    probe_keep: float | None = None
    refresh: int = 1
    gradient_importance: bool = True
    memory_importance: bool = True
    scale: float = 1.0
    values: Literal["bfloat16", "float16", "float32", "int8"] = "bfloat16"
    share: float | None = None
    limit: float | None = None
    faithful: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_or_none(1, probe=self.probe)
        whole(1, refresh=self.refresh)
        given = {name: getattr(self, name) for name in ("probe_keep", "limit") if getattr(self, name) is not None}
        positive(scale=self.scale, **given)
        between(0, 1, probe_keep=self.probe_keep or 1.0, share=1.0 if self.share is None else self.share)
        one_of("bfloat16", "float16", "float32", "int8", values=self.values)
        if self.faithful and self.limit is not None:
            raise ValueError("limit lowers shares, which the released code does not. Leave out limit or faithful.")

    def setup(self, state: State) -> None:
        super().setup(state)
        if self._probes(state.weights.values()):
            layers = next(iter(state.weights.values())).new_ones(len(state.weights), dtype=torch.float32)
            state.table.declare("memory.shares", layers, initial=1.0, kind="statistics")
            state.table.declare("memory.probed", layers.new_zeros(()), initial=0.0, kind="statistics", merge="max")
            state.generator("memory.probe")

    def begin(self, state: State, x: Tensor, keeper: Keeper) -> Chooser:
        released = Released(state.model) if self.faithful else None
        if released is not None:
            keeper.operations.instead = released.compute
        if self.share is not None:
            shares = dict.fromkeys(state.weights, self.share)
            return lambda saved: self._choose(saved, shares, released)
        if "memory.shares" not in state.table.slots:
            return self.choose
        kept = state.table.slots["memory.shares"].tensor
        known = state.table.slots["memory.probed"].tensor
        due = state.batches % self.refresh == 0 or not bool(known)  # restarts and idle steps forget the shares
        sizes = self._probe(state, x, keeper, kept, released) if len(x) and due else {}
        if due:
            known.fill_(1.0)
        shares = dict(zip(state.weights, kept.tolist(), strict=True))
        keeper.planned, keeper.expected = self._bytes(shares, sizes, 1.0), sizes
        if self.limit is not None and keeper.planned > self.limit * len(x):
            factor = self._factor(shares, sizes, self.limit * len(x))
            kept.mul_(factor)
            shares = {name: share * factor for name, share in shares.items()}
            keeper.planned = self._bytes(shares, sizes, 1.0)
        state.detail("share", kept.clone(), state.weights)
        return lambda saved: self._choose(saved, shares, released)

    def _probes(self, weights: Iterable[Tensor]) -> bool:
        """Whether anything of these weights has a use for shares."""
        return self.share is None and any(self.faithful or w.ndim > 1 for w in weights if w.requires_grad)

    def _choose(self, saved: Saved, shares: dict[str, float], released: Released | None) -> Codec:
        if released is not None:
            return released.keep(saved, shares)
        if saved.family == "weighted" and saved.role == "input" and saved.learns():
            return Sparse(keep=shares.get(saved.layer, 1.0), values=self.values)
        return self.choose(saved)

    def held_to(self, limit: float) -> Self:
        free = self.share is None and self.limit is None and not self.faithful
        return replace(self, limit=limit) if limit > 0 and free else self

    def most(self, samples: int) -> float:
        return (self.limit or 0.0) * samples

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

    def passes(self, samples: int, weights: Iterable[Tensor] | None = None) -> tuple[float, int]:
        """At most so much; exact for these weights, where they are given."""
        probes = self.share is None if weights is None else self._probes(weights)
        return (self.samples(samples) / samples, 1) if probes else (0.0, 0)

    def samples(self, batch: int) -> int:
        """How many of a batch are probed."""
        return min(batch, self.probe or (10 if self.faithful else max(1, min(10, math.ceil(0.05 * batch)))))

    def _probe(
        self, state: State, x: Tensor, keeper: Keeper, kept: Tensor, released: Released | None
    ) -> dict[str, int]:
        """Renew the shares; gives the size of each layer's input for the whole batch, by weight."""
        at = torch.randperm(len(x), generator=state.generator("memory.probe"))[: self.samples(len(x))].to(x.device)
        shares = dict.fromkeys(state.weights, self.probe_keep or 0.1)
        choose = (lambda saved: self._choose(saved, shares, None)) if released is None else released.keep_all
        if released is None and self.probe_keep is None and 20 * len(at) <= len(x):
            choose = as_it_is
        with keeper.choosing(choose) as inputs:
            logits = state.forward(x[at], answering=False, rows=at)
            if not logits.requires_grad:
                return {}  # the method's own step says what is wrong
            learning = {name: weight for name, weight in state.weights.items() if weight.requires_grad}
            found = torch.autograd.grad(entropy(logits).mean(), list(learning.values()), allow_unused=True)
        state.backwards += 1
        reached = ((name, gradient) for name, gradient in zip(learning, found, strict=True) if gradient is not None)  # pyright: ignore[reportUnnecessaryComparison]
        gradients = dict(reached)
        measured, total = inputs, None
        with torch.no_grad():
            if released is not None:
                gradients, measured, total = released.importance(state, gradients)
            strength = {name: gradient.float().square().mean().sqrt() for name, gradient in gradients.items()}
            importance = torch.stack([strength.get(name, kept.new_zeros(())) for name in state.weights])
            sizes = torch.tensor([float(measured.get(name, 0)) for name in state.weights], device=x.device)
            kept.copy_(self._shares(importance, sizes, kept, total))
        keeper.probed = len(at)
        state.detail("gradient_importance", importance, state.weights)
        state.detail("memory_importance", _costs(sizes, total), state.weights)
        whole = {name: size * len(x) // len(at) for name, size in inputs.items() if state.weights[name].ndim > 1}
        return whole if released is None else {}

    def _shares(self, importance: Tensor, sizes: Tensor, before: Tensor, total: int | None = None) -> Tensor:
        """Each tensor's share, from the root mean square of its gradient and the size of its layer's input.

        `total`, if it is not the sum of these sizes, is what they are parts of.
        """
        if not self.gradient_importance:
            importance = torch.ones_like(importance)
        if self.memory_importance:
            importance = torch.where((sizes > 0).sum() > 1, importance * _costs(sizes, total), importance)
        importance = torch.where(sizes > 0, importance, 0.0)
        highest = importance.max()
        shares = (self.scale * importance / highest).clamp(0, 1)
        return torch.where((highest > 0) & highest.isfinite() & shares.isfinite().all(), shares, before)


def _costs(sizes: Tensor, total: int | None) -> Tensor:
    """`M`: minus the logarithm of each size's part of all; 0 for a tensor that is no layer's weight."""
    return torch.where(sizes > 0, 0.0 - (sizes / (sizes.sum() if total is None else total)).log(), 0.0)
