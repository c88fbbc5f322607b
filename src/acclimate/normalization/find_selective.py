"""Selective FIND: samples are grouped in the layers where that tells domains apart, and stay together elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import between, one_of, whole
from acclimate.core.normalization import NormalizationLayer, normalizations
from acclimate.core.state import State
from acclimate.core.table import Table
from acclimate.normalization.find import LEAST, FeatureAwareStatistics
from acclimate.normalization.find_selected import UNDECIDED, Reading, SelectiveLayer
from acclimate.parts.layer_scores import RULES, chosen, domain_share
from acclimate.parts.layers_named import first_layers, layers_named
from acclimate.parts.pseudo_domains import PSEUDO_DOMAINS, pseudo_domains
from acclimate.parts.source_images import source_batches

__all__ = ["SelectiveFeatureAwareStatistics"]

_SELECTORS = ("probe", "divergence", "fixed")
_MOST = 64  # images that are probed
_SLOT = "normalization.find."


@normalizations.register("find-selective")
@dataclass(frozen=True, kw_only=True)
class SelectiveFeatureAwareStatistics(FeatureAwareStatistics):
    """FIND in some layers only (S-FABN), chosen once: the others are normalised by the whole batch.

    Layers are scored by `select`, and those whose score suffices by `rule` are grouped; at least one always is.

    "probe" asks for which share of what distinguishes samples the domain accounts: M = 5 versions of the same images
    (as they are, with noise, blurred, flat, bright) run through the source model, and a layer's score is D / (D + E),
    where D is the spread of the versions' means and E that of the images' means, of samples' means in units of the
    source's statistics. It takes `images`, or else the first batch, of which it uses up to 64.
    "divergence" groups every layer for the first `batches` batches and scores by how far the blended statistics of
    groups are from those of the whole batch (symmetric KL divergence of normal distributions, averaged over samples and
    channels), less the same for groups of the same sizes at random, and not below 0.
    "fixed" groups `layers`: dotted names of layers or of modules that hold them; or of the stages numbered in `stages`
    from 1, with what precedes the first; or the first share `first`, up to the end of a block.

    Arguments, besides those of `find`: `select`; `images`, clean images of the source `[N, ...]` without labels, 32 or
    more, or an iterable of batches of them, for "probe"; `batches` >= 1; `rule`, "mean" (at least the mean of all
    scores), "absolute" (at least `level`) or "top" (the share `level` of layers with the highest scores, rounded up),
    `level` in [0, 1]; `unified`, what other layers do, "batch" (the blend with the whole batch for one group) or
    "source"; `layers`, `stages`, `first`.

    Kept: two numbers for each layer, its score and choice, and what a reset returns to: the choice from `images` or
    `fixed`, otherwise none. Batches of one to three samples have no groups and choose nothing; neither do whole numbers
    for inputs: until a choice is made all layers are grouped. The step's record has `grouped_layers`, `choosing`, and
    `one_group` for batches too small.

    Cost: as `find` in grouped layers; five forwards once for "probe".
    Source: as `find`; that layers are selected for the sake of speed is published. The selectors, scores, rules and
    what other layers do are inferred from its authors' leftover code, no paper's.
    Fails where `find` fails; a first batch of several domains makes "probe" score all layers lower.

    Example: `acclimate.adapt(net, "bn", normalization="find-selective")`.
    """

    observes: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"select": name} for name in _SELECTORS}
    select: str = "probe"
    images: Any = field(default=None, repr=False, compare=False, metadata={"recorded": False})
    batches: int = 5
    rule: str = "mean"
    level: float = 0.5
    unified: str = "batch"
    layers: tuple[str, ...] = ()
    stages: tuple[int, ...] = ()
    first: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(*_SELECTORS, select=self.select)
        one_of(*RULES, rule=self.rule)
        one_of("batch", "source", unified=self.unified)
        between(0, 1, level=self.level, first=self.first)
        whole(1, batches=self.batches)

    def grouping_layer(self, source: _BatchNorm, name: str) -> SelectiveLayer:
        return SelectiveLayer(source, name, self, unified=self.unified, scoring=self.select == "divergence")

    def connect(self, layers: list[NormalizationLayer], table: Table) -> None:
        table.count("find.batches")
        if not layers:
            return
        device = layers[0].source_statistics()[0].device
        kept: dict[str, Tensor] = {}
        for name, value, kind in (("choice", UNDECIDED, torch.int8), ("scores", 0, torch.float32)):
            initial, kept[name] = (torch.full((len(layers),), value, dtype=kind, device=device) for _ in range(2))
            table.declare(f"{_SLOT}initial_{name}", initial, initial=initial, kind="statistics")
            table.declare(f"{_SLOT}{name}", kept[name], initial=initial, kind="statistics", merge="first")
        reading = Reading()
        for place, layer in enumerate(_selective(layers)):
            layer.place, layer.seed, layer.reading = place, table.seed, reading
            for name, tensor in kept.items():
                layer.register_buffer(name, tensor, persistent=False)

    @property
    def by_stream(self) -> bool:
        """Whether layers are chosen by batches of the stream."""
        return self.select == "divergence" or (self.select == "probe" and self.images is None)

    def passes(self) -> float:
        return float(len(PSEUDO_DOMAINS)) if self.select == "probe" and self.images is None else 0.0

    def ready(self, state: State) -> None:
        if not state.layers or self.by_stream:
            return
        scores = self._named(state) if self.select == "fixed" else self._measured(state)
        self._choose(state, scores, [_SLOT, f"{_SLOT}initial_"])

    def observe(self, state: State, x: Tensor) -> None:
        super().observe(state, x)
        layers = _selective(state.layers)
        if not layers:
            return
        reading = layers[0].reading
        reading.first = "choosing" not in state.notes  # of the steps that a method repeats on one batch
        choosing = layers[0].choosing and reading.first
        counters = state.table.counters
        choice, scores = (state.table.slots[f"{_SLOT}{name}"].tensor for name in ("choice", "scores"))
        if choosing and self.select == "probe":
            if len(x) >= LEAST and x.is_floating_point() and x.ndim > 2:
                rows = None if len(x) <= _MOST else torch.arange(_MOST, device=x.device)
                means = _probed(state, x[:_MOST], state.extremes, rows)
                self._choose(state, torch.stack([domain_share(each) for each in means]), [_SLOT])
        elif choosing:
            if counters["find.batches"] == self.batches:
                self._choose(state, scores / self.batches, [_SLOT])
            elif len(x) >= LEAST:
                counters["find.batches"] += 1
        names = [layer.name for layer in layers]
        state.note(choosing=float(layers[0].choosing), grouped_layers=float(sum(layer.grouped for layer in layers)))
        state.detail("choice", choice.clone(), names)
        state.detail("scores", scores.clone(), names)

    def _choose(self, state: State, scores: Tensor, where: list[str]) -> None:
        """Write down the scores `[L]` and what follows from them."""
        rule, level = ("absolute", 0.5) if self.select == "fixed" else (self.rule, self.level)
        found = chosen(scores, rule, level)
        for prefix in where:
            state.table.slots[f"{prefix}scores"].tensor.copy_(scores)
            state.table.slots[f"{prefix}choice"].tensor.copy_(torch.tensor(found))

    def _named(self, state: State) -> Tensor:
        names = [layer.name for layer in state.layers if isinstance(layer, SelectiveLayer)]
        if self.layers or self.stages:
            found = layers_named(state.model, names, self.layers, self.stages)
        else:
            found = first_layers(state.model, names, self.first)
        return torch.tensor([float(name in found) for name in names])

    def _measured(self, state: State) -> Tensor:
        """Scores of the probe on source images."""
        found: list[list[Tensor]] = []
        taken = 0
        for x, _ in source_batches(state, self.images, _MOST, samples=_MOST):
            if not x.is_floating_point() or x.ndim < 3:
                raise ValueError(
                    f"find-selective probes with images [N, C, ...] of floating point numbers, found {list(x.shape)} "
                    f"{x.dtype}. Choose select='divergence', which needs none."
                )
            x = x[: _MOST - taken]
            taken += len(x)
            low, high = x.aminmax()
            with torch.no_grad():
                found.append(_probed(state, x, (float(low), float(high))))
        scores = torch.stack([domain_share(torch.cat(each, 1)) for each in zip(*found, strict=True)])
        if taken < 2 or not bool(scores.isfinite().all()):
            raise ValueError(
                f"find-selective measured {taken} images of the source, with scores from {float(scores.min()):.3g} to "
                f"{float(scores.max()):.3g}. Expected two images or more, better 32, without NaN."
            )
        return scores


def _selective(layers: list[NormalizationLayer]) -> list[SelectiveLayer]:
    return [layer for layer in layers if isinstance(layer, SelectiveLayer)]


def _probed(state: State, x: Tensor, extremes: tuple[float, float], rows: Tensor | None = None) -> list[Tensor]:
    """Of each layer the standardised means `[M, N, C]` of images under each pseudo-domain."""
    layers = _selective(state.layers)
    found: list[list[Tensor]] = [[] for _ in layers]
    for view in pseudo_domains(x, extremes, torch.Generator().manual_seed(state.table.seed)):
        for layer in layers:
            layer.means = None
        state.run(view, "observe", rows=rows)
        for kept, layer in zip(found, layers, strict=True):
            kept.append(x.new_zeros(len(x), 1) if layer.means is None else layer.means)
            layer.means = None
    return [torch.stack(kept) for kept in found]
