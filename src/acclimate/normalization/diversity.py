"""DABN: one normalisation for batches of one domain, another for mixed ones, chosen batch by batch (DATTA)."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import one_of
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations
from acclimate.core.table import Table
from acclimate.normalization.alpha import AlphaLayer, AlphaStatistics
from acclimate.normalization.find_selective import SelectiveFeatureAwareStatistics
from acclimate.parts.diversity.decision import MIXED, Decision, Discriminating
from acclimate.parts.diversity.score import diversity_score

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["DiversityLayer", "DiversityStatistics", "Watch"]

_SLOT = "normalization.diversity.record"
_HEAD = 3
"""What the record holds before the scores: the last decision, and the two medians of a reference."""
_NONE = -1.0


@normalizations.register("diversity")
@dataclass(frozen=True, kw_only=True)
class DiversityStatistics(Discriminating, Normalization):
    """Score each batch by the input of its first batch norm, and normalise it as one domain or as several.

    By default `m = rho mu_s + (1 - rho) mu_B` and `v = rho var_s + (1 - rho) var_B` with the batch's unbiased variance,
    `rho = 0.60` for one domain and 0.85 for several. The first batch norm that runs scores the batch before anything is
    normalised (`diversity_score`) and decides for all layers, so no further forward is needed. An answering forward
    keeps its score and decides by all that are kept, its own among them; frozen answers, views and teachers decide by
    the scores that are there and keep nothing. A batch of one row, a score that is no number, and a stream whose scores
    show no border (as in the warm-up) count as several domains.

    Arguments: `single` and `multiple`, the normalisation of either kind, a name or an instance (with one and the same,
    only the decision is of use); `mode`, "single" or "multiple" to fix it, "auto" to decide; `probe`, the dotted name
    of the batch norm that decides, or where it stands among them, from 0.0 to below 1.0, by default the first that runs
    (layers before it count every batch as mixed); and those of `Discriminating`. `soft` needs two "alpha"
    normalisations, whose weights it blends. Presets: "v1", low scores below their median and, for others, damped
    instance statistics; "robust", ours, Otsu's cut of energies at the third of the depth; "reference", ours, the same
    energies against a border measured on images of the source, which its discriminator is given, and FIND's groups for
    several domains (chosen on training images under the four extra corruptions).

    Record: what either normalisation notes, such as `one_group` of "find", whichever kind the batch is of.
    Cost: one forward, and a few passes over the first layer's input; `kept` + 3 numbers; one host read.
    Raises ValueError for batch norms without running statistics, an unknown probe, normalisations that take more
    than a pass to observe or choose layers by the stream, and two different ones of "find-selective".
    Source: DATTA, ICME 2025 (arXiv 2408.08056). The weights, the warm-up and the rule are from its code, the score's
    apex from its figure; "v1" takes its damping from the code's history, and its threshold is inferred.
    Fails where the score does not tell: it compares directions in which samples leave the source, and some shifts
    scatter more by themselves than mixtures of others.

    Example: `acclimate.adapt(net, "bn", normalization=DiversityStatistics(multiple="instance_aware"))`.
    """

    by_batch: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "v2": {},
        "v1": {"discriminator": "quantile", "multiple": "damped"},
        "robust": {"discriminator": "otsu", "score": "energy", "probe": 0.3},
        "reference": {"discriminator": "reference", "score": "energy", "probe": 0.3, "multiple": "find"},
    }
    single: str | Normalization = AlphaStatistics(source_weight=0.60)  # noqa: RUF009 (frozen)
    multiple: str | Normalization = AlphaStatistics(source_weight=0.85)  # noqa: RUF009 (frozen)
    mode: str = "auto"
    probe: str | float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        single, multiple = (normalizations.build(each) for each in (self.single, self.multiple))
        if _alike(single, multiple):
            multiple = single
        object.__setattr__(self, "single", single)
        object.__setattr__(self, "multiple", multiple)
        one_of("auto", "single", "multiple", mode=self.mode)
        if isinstance(self.probe, float) and not 0 <= self.probe < 1:
            raise ValueError(f"probe must be a name, or a share of the depth from 0 to below 1, found {self.probe!r}.")
        modes = [single, multiple]
        for each in modes:
            own_passes = type(each).observe is not Normalization.observe and each.passes() > 0
            by_stream = isinstance(each, SelectiveFeatureAwareStatistics) and each.by_stream
            if own_passes or by_stream or isinstance(each, DiversityStatistics):
                raise ValueError(
                    f"normalization {each.name!r} takes passes or batches of its own before an answer, so it cannot be "
                    "one of two that are chosen between. Choose others for single= and multiple=, such as 'alpha' or "
                    "'batch', or 'find-selective:fixed'."
                )
        if single is not multiple and all(isinstance(each, SelectiveFeatureAwareStatistics) for each in modes):
            raise ValueError(
                "single= and multiple= are two different normalisations 'find-selective', of which one model has room "
                "for one choice of layers. Give both the same settings and images, or choose 'find' for one of them."
            )
        if self.soft and not all(isinstance(each, AlphaStatistics) and not each.prior for each in modes):
            raise ValueError(
                "soft=True blends the source's weights of two 'alpha' normalisations without prior. Choose "
                "AlphaStatistics(source_weight=...) for single= and multiple=, or soft=False."
            )
        object.__setattr__(self, "observes", any(each.observes for each in modes))

    @property
    def modes(self) -> dict[str, Normalization]:
        """The normalisation of each kind of batch."""
        return {"single": normalizations.build(self.single), "multiple": normalizations.build(self.multiple)}

    def _distinct(self) -> Iterable[tuple[str, Normalization]]:
        """One kind of batch for each normalisation, and that normalisation."""
        return {id(each): (mode, each) for mode, each in self.modes.items()}.values()

    def passes(self) -> float:
        return float(any(each.passes() > 0 for each in self.modes.values()))

    @property
    def numbers(self) -> int:
        """How many single numbers are kept over batches."""
        return _HEAD + self.kept

    def source_weight(self, share: float) -> float | None:
        """The weight of the source's statistics at a decision; None for other kinds of normalisation."""
        modes = list(self.modes.values())
        weights = [each.source_weight for each in modes if isinstance(each, AlphaStatistics) and not each.prior]
        return math.fsum((weights[0], share * (weights[1] - weights[0]))) if len(weights) == 2 else None

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return DiversityLayer(source, name, table, self)

    def connect(self, layers: list[NormalizationLayer], table: Table) -> None:
        own = [layer for layer in layers if isinstance(layer, DiversityLayer)]
        if own:
            device = own[0].source_statistics()[0].device
            record = torch.full((self.numbers,), _NONE, dtype=torch.float32, device=device)
            table.declare(_SLOT, record, initial=_NONE, kind="statistics", merge="first")
            watch = Watch(self._probe([layer.name for layer in own]))
            for layer in own:
                layer.join(record, watch)
        for mode, each in self._distinct():
            each.connect(_inner(own, mode), table)

    def _probe(self, names: list[str]) -> str | None:
        """The name of the batch norm that decides; None for the first that runs."""
        if isinstance(self.probe, float):
            return names[int(self.probe * len(names))]
        if self.probe is not None and self.probe not in names:
            raise ValueError(f"probe {self.probe!r} is no batch norm of this model. It has: {', '.join(names)}.")
        return self.probe

    def ready(self, state: State) -> None:
        for mode, each in self._distinct():
            with _acting(state, mode, each):
                each.ready(state)
        reference = self.rule.reference
        if reference is not None and state.layers:
            watch = cast("DiversityLayer", state.layers[0]).watch

            @torch.no_grad()
            def score(x: Tensor) -> float:
                state.run(x, "view")
                return watch.decisions[0].score

            slot = state.table.slots[_SLOT]
            slot.tensor[1:_HEAD] = reference.measure(state, score).to(slot.tensor)
            slot.initial = slot.tensor.clone()

    def observe(self, state: State, x: Tensor) -> None:
        if self.passes():
            super().observe(state, x)
        for mode, each in self._distinct():
            if each.observes and not each.passes():
                with _acting(state, mode, each):
                    each.observe(state, x)


class Watch:
    """What the layers of one model share: the decisions of the running forward, one for each group of rows."""

    def __init__(self, probe: str | None) -> None:
        self.probe = probe
        self.early: set[str] = set()
        self.decisions: tuple[Decision, ...] = ()
        self.held = False
        """The next forwards go by the decisions that were taken."""
        self.spare = False
        """The graph ends at the layer that decides for several domains."""
        self.apart = False
        """The two normalisations are told by others what a forward is for."""

    @contextlib.contextmanager
    def learning(self, *, spare: bool, held: bool) -> Generator[None]:
        """Within this block gradients are on until a batch is found to be mixed."""
        self.spare, self.held = spare, held
        try:
            with torch.set_grad_enabled(not (spare and held) or any(each.single for each in self.decisions)):
                yield
        finally:
            self.spare = self.held = False

    def asks(self, name: str) -> bool:
        """Whether this layer has to decide now."""
        if self.probe is None:
            self.probe = name
        return name == self.probe and not self.held

    def of(self, name: str, groups: int) -> tuple[Decision, ...]:
        """The decisions that hold for this layer; several domains in layers that run before there are some."""
        if not self.decisions:
            self.early.add(name)
        if name in self.early:
            return (MIXED,) * groups
        return self.decisions if len(self.decisions) == groups else self.decisions[:1] * groups


class DiversityLayer(NormalizationLayer):
    """Two layers in the place of one, which borrow its weight and bias, and the record that decides between them."""

    def __init__(self, source: _BatchNorm, name: str, table: Table, config: DiversityStatistics) -> None:
        self.watch = Watch(None)  # first, because of `decisions`
        super().__init__(source)
        self.name, self.config, self.live = name, config, True
        self.source_statistics()
        bare = cast("_BatchNorm", self.stock(track=True))
        single, multiple = config.modes.values()
        alike = single is multiple
        first = single.layer(bare, name if alike else f"{name}.single", table)
        second = first if alike else multiple.layer(bare, f"{name}.multiple", table)
        self.inner = nn.ModuleDict()
        for mode, layer in (("single", first), ("multiple", second)):
            if layer is not bare:
                self.inner[mode] = layer
        self._lend()

    def join(self, record: Tensor, watch: Watch) -> None:
        """Share the record and the decisions with the other layers."""
        self.register_buffer("record", record)
        self.record: Tensor
        self.watch = watch

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        super().register_parameter(name, param)
        if "inner" in self._modules:
            self._lend()

    def _lend(self) -> None:
        for layer in self.inner.values():
            for key in ("weight", "bias"):
                layer._parameters.pop(key, None)  # pyright: ignore[reportPrivateUsage]  # one weight has one name
                vars(layer)[key] = getattr(self, key)

    @property
    def decisions(self) -> Any:
        """What a second run of a part of the running forward needs again."""
        return self.watch.decisions, self.watch.held

    @decisions.setter
    def decisions(self, value: Any) -> None:
        self.watch.decisions, self.watch.held = value or ((), False)

    def forward(self, x: Tensor) -> Tensor:
        watch = self.watch
        if watch.asks(self.name):
            watch.decisions = tuple(self.decide(part) for part in x.chunk(self.groups))
            if watch.spare and not any(each.single for each in watch.decisions):
                torch.set_grad_enabled(False)
        shares = [each.share for each in watch.of(self.name, self.groups)]
        if len(set(shares)) == 1:
            return self._by(shares[0], x, self.groups)
        parts = zip(shares, x.chunk(self.groups), strict=True)
        return torch.cat([self._by(share, part, 1) for share, part in parts])

    def _by(self, share: float, x: Tensor, groups: int) -> Tensor:
        mode = "single" if share < 0.5 else "multiple"
        if mode not in self.inner:
            return self.normalise_by_source(x)
        layer = self.inner[mode]
        if isinstance(layer, NormalizationLayer) and not self.watch.apart:
            layer.phase, layer.groups, layer.owner = self.phase, groups, self.owner
            layer.depth = self.depth
        if self.config.soft and isinstance(layer, AlphaLayer):
            layer.config = replace(layer.config, source_weight=self.config.source_weight(share))
        return layer(x)

    @torch.no_grad()
    def decide(self, x: Tensor) -> Decision:
        """One domain or several; an answer's score is kept."""
        config = self.config
        if config.mode != "auto":
            single = config.mode == "single"
            return Decision(math.nan, None, single, float(not single))
        if len(x) == 1:
            return MIXED
        score = diversity_score(x, self.source_statistics()[0], config.apex, config.score)
        score = score.to(self.record.dtype).nan_to_num(_NONE, _NONE, _NONE)[None]
        answering = self.phase in ("answer", "observe") and self.live
        record = self.record if config.delayed else torch.cat([self.record, score])
        head, scores = record.to("cpu", torch.float64).tensor_split([_HEAD])  # the one host read
        now = float(scores[-1])
        if not config.delayed:
            scores = scores[1:] if answering else scores[:-1]
        last, *medians = head.tolist()
        decision = config.decide(
            now if now != _NONE else math.nan,
            scores[scores != _NONE],
            None if last == _NONE else last > 0,
            head[1:] if medians[0] != _NONE else None,
        )
        if self.phase == "answer" and self.live:
            self.record[_HEAD:] = torch.cat([self.record[_HEAD + 1 :], score])
            self.record[0] = float(decision.single)
        return decision

    def plain(self) -> nn.Module:
        """This layer, which decides by the scores that are kept and keeps no more."""
        twin = copy.copy(self)
        vars(twin)["_modules"] = {"inner": nn.ModuleDict({mode: _plain(layer) for mode, layer in self.inner.items()})}
        twin.live = False
        twin._lend()
        return twin


def _alike(one: Normalization, other: Normalization) -> bool:
    """Whether they have the same settings, and the same objects where these are not compared."""
    apart = [field.name for field in fields(one) if not field.compare]
    return one == other and all(getattr(one, name) is getattr(other, name) for name in apart)


def _plain(layer: nn.Module) -> nn.Module:
    return layer.plain() if isinstance(layer, NormalizationLayer) else layer


def _inner(layers: list[DiversityLayer], mode: str) -> list[NormalizationLayer]:
    found = [layer.inner[mode] for layer in layers if mode in layer.inner]
    return [layer for layer in found if isinstance(layer, NormalizationLayer)]


@contextlib.contextmanager
def _acting(state: State, mode: str, normalization: Normalization) -> Generator[None]:
    """Within this block the state has one of the two normalisations, and every batch counts as its kind."""
    outer, layers = state.normalization, state.layers
    own = [layer for layer in layers if isinstance(layer, DiversityLayer)]
    watches = [layer.watch for layer in own[:1]]  # all share it
    before = [(watch.held, watch.apart, watch.decisions) for watch in watches]
    held = Decision(math.nan, None, mode == "single", float(mode != "single"))
    state.normalization, state.layers = normalization, _inner(own, mode)
    for watch in watches:
        watch.held, watch.apart, watch.decisions = True, True, (held,)
    try:
        yield
    finally:
        state.normalization, state.layers = outer, layers
        for watch, values in zip(watches, before, strict=True):
            watch.held, watch.apart, watch.decisions = values
