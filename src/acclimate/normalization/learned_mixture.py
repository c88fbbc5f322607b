"""TTN: how much each channel trusts the batch, learned on the source before the stream begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.core.config import at_least, between, positive, whole
from acclimate.core.normalization import Normalization, NormalizationLayer, normalizations, wide
from acclimate.core.table import Table
from acclimate.parts.source_images import source_batches
from acclimate.parts.source_training import report_losses, source_steps
from acclimate.parts.views import Views, check_images, check_views

if TYPE_CHECKING:
    from acclimate.core.state import State

__all__ = ["LearnedMixture", "prior"]

View = Callable[[Tensor, torch.Generator], Tensor]


@normalizations.register("ttn")
@dataclass(frozen=True, kw_only=True)
class LearnedMixture(Normalization):
    """A weight of the test batch for each channel, learned on labelled source images (TTN). A reconstruction.

    `m = a mu_B + (1 - a) mu_s`, `v = a var_B + (1 - a) var_s + a (1 - a) (mu_B - mu_s)^2` (biased variance). Before the
    stream, a is set to a prior: with `g_i = dL / d(weight, bias)` of a channel for image i, and `g'_i` for an augmented
    copy, `d = 1 - mean_i cos(g_i, g'_i)` and `A = ((d - min d) / (max d - min d))^2` over all channels of all layers,
    so that channels whose gradients react to a shift listen to the batch. Then a alone is trained on augmented images,
    normalised in this way, by `cross-entropy + penalty mean (a - A)^2` and Adam, held to [0, 1]. On the stream it is
    fixed: nothing is carried over. One value a channel uses the source's statistics; `BatchNorm1d` layers keep them.

    Arguments: `source`, labelled images, a pair (images, labels) or an iterable of such batches, read `epochs + 1`
    times; `penalty` >= 0 (1), `learning_rate` > 0 (1e-3), `epochs` >= 0 (10), `batch_size` >= 1 (200), of this
    training; `views`, a callable (x, generator) -> x that augments images. Instead of `source`: `test_weight`, a in
    [0, 1] for all layers, or a tuple with one number for each (`acclimate.anatomy.batch_norms` in their order, without
    `BatchNorm1d`). Nothing is learned then, and it is **not TTN** but mixing by hand; preset "constant" is 0.1.

    Published are the mixture, the prior and the loss, as we know them from the paper; there is no code by its authors.
    Assumed here: the statistics of the source in the prior's forwards, the augmentation (PALM's views, one draw for
    each image), that a channel which no gradient reaches does not react (`cos = 1`), `epochs` and `batch_size`.

    Cost: one number for each channel. Building the adaptation costs two forwards and backwards of the source images
    for the prior and one of each for every epoch; what was learned is saved with the state, so that a saved adaptation
    needs no images.
    Raises ValueError when a new adaptation starts without `source` or `test_weight`, and for images outside [0, 1]
    unless `views` are yours.
    Source: Lim et al., ICLR 2023.
    Fails when the shift is unlike the augmentation, or when batches are far smaller than those it was trained on.

    Example: `acclimate.adapt(net, "bn", normalization=LearnedMixture(source=(images, labels)))`.
    """

    by_batch: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"constant": {"test_weight": 0.1}}
    source: Any = field(default=None, repr=False, compare=False, metadata={"recorded": False})
    test_weight: float | tuple[float, ...] | None = None
    penalty: float = 1.0
    learning_rate: float = 1e-3
    epochs: int = 10
    batch_size: int = 200
    views: View = Views(per_sample=True)  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        for value in self._given():
            between(0, 1, test_weight=value)
        at_least(0, penalty=self.penalty)
        positive(learning_rate=self.learning_rate)
        whole(0, epochs=self.epochs)
        whole(1, batch_size=self.batch_size)
        check_views(views=self.views)

    @property
    def lacks_source(self) -> bool:
        """Whether it still has to be given labelled images of the source."""
        return self.source is None and self.test_weight is None

    def _given(self) -> tuple[float, ...]:
        if self.test_weight is None:
            return ()
        return tuple(self.test_weight) if isinstance(self.test_weight, (tuple, list)) else (self.test_weight,)

    def layer(self, source: _BatchNorm, name: str, table: Table) -> nn.Module:
        return source if isinstance(source, nn.BatchNorm1d) else MixtureLayer(source, name, table)

    def connect(self, layers: list[NormalizationLayer], table: Table) -> None:
        given = self._given()
        if len(given) not in (0, 1, len(layers)):
            raise ValueError(
                f"test_weight has {len(given)} numbers for {len(layers)} batch norms. Give one for each or one for all."
            )
        for layer, value in zip(layers, given * (len(layers) if len(given) == 1 else 1), strict=False):
            layer.get_buffer("test_weight").fill_(value)

    def ready(self, state: State) -> None:
        layers = [layer for layer in state.layers if isinstance(layer, MixtureLayer)]
        if not layers or self.test_weight is not None:
            return
        if self.source is None:
            raise ValueError(
                "ttn learns from labelled source images how much each channel trusts the batch, and was given none. "
                "Pass LearnedMixture(source=(images, labels)), choose 'ttn:constant', which learns nothing, or 'alpha'."
            )
        draws = torch.Generator().manual_seed(state.table.seed)
        reactions, batches = self._reactions(state, layers, draws)
        expected = prior(reactions)
        for layer, value in zip(layers, expected.split([len(layer.test_weight) for layer in layers]), strict=True):
            layer.test_weight.copy_(value)
        self._train(state, layers, expected, self.epochs * batches, batches, draws)

    def _reactions(self, state: State, layers: list[MixtureLayer], draws: torch.Generator) -> tuple[Tensor, int]:
        """`d` of all channels, one layer after another, and how many batches the source has."""
        alike, rows, batches = torch.zeros(()), 0, 0
        for x, labels in source_batches(state, self.source, self.batch_size, labelled=True):
            assert labels is not None
            own, other = (_slopes(state, layers, each, labels) for each in (x, self._augmented(x, draws)))
            alike = alike.to(own) + _cosines(own, other).sum(0)
            rows, batches = rows + len(x), batches + 1
        return 1 - alike / rows, batches

    def _train(
        self,
        state: State,
        layers: list[MixtureLayer],
        expected: Tensor,
        steps: int,
        report_every: int,
        draws: torch.Generator,
    ) -> None:
        weights = [layer.test_weight.requires_grad_() for layer in layers]
        optimizer = torch.optim.Adam(weights, lr=self.learning_rate)
        losses: list[Tensor] = []
        for x, labels in source_steps(state, self.source, self.batch_size, steps, draws):
            logits = state.forward(self._augmented(x, draws), answering=False)
            away = F.mse_loss(torch.cat(weights), expected)
            loss = F.cross_entropy(logits.to(expected.dtype), labels) + self.penalty * away
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.grad = gradient
            optimizer.step()
            with torch.no_grad():
                for weight in weights:
                    weight.clamp_(0, 1)
            losses.append(loss.detach())
            report_losses(losses, steps, report_every)
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None

    def _augmented(self, x: Tensor, draws: torch.Generator) -> Tensor:
        if self.views == type(self).views:
            low, high = x.aminmax()
            check_images("ttn", x, (float(low), float(high)))
        return self.views(x, draws)


class MixtureLayer(NormalizationLayer):
    """Keeps `test_weight`, a of each channel. `slopes`, while gradients are looked at: weight and bias by sample."""

    test_weight: Tensor

    def __init__(self, source: _BatchNorm, name: str, table: Table) -> None:
        super().__init__(source)
        mean, _ = self.source_statistics()
        weight = torch.zeros_like(mean, dtype=wide(mean.dtype))
        self.register_buffer("test_weight", weight)
        table.declare(f"normalization.{name}.test_weight", weight, initial=weight, kind="weights")
        self.looking = False
        self.slopes: tuple[Tensor, ...] = ()

    def respond(self, x: Tensor) -> Tensor:
        if self.looking:
            return self._looked_at(x)
        if x.numel() == x.shape[1]:
            return self.normalise_by_source(x)
        a, (mean, variance) = self.test_weight, self.moments(x)
        source_mean, source_variance = self.source_statistics()
        away = mean - source_mean
        spread = a * variance + (1 - a) * source_variance + a * (1 - a) * away.square()
        return self.normalise(x, source_mean + a * away, spread)

    def _looked_at(self, x: Tensor) -> Tensor:
        """As the source does, with a weight and bias for each sample: one backward gives each one's gradients."""
        if not self.slopes:
            shape = (len(x), self.num_features)
            one, none = x.new_ones(shape), x.new_zeros(shape)
            weight = one if self.weight is None else one * self.weight.detach()  # pyright: ignore[reportUnnecessaryComparison]
            bias = none if self.bias is None else none + self.bias.detach()  # pyright: ignore[reportUnnecessaryComparison]
            self.slopes = weight.requires_grad_(), bias.requires_grad_()
        plain = F.batch_norm(x, self.running_mean, self.running_var, None, None, False, 0.0, self.eps)
        weight, bias = (each.view(*each.shape, *(1,) * (x.ndim - 2)) for each in self.slopes)
        return plain * weight + bias


def prior(reactions: Tensor) -> Tensor:
    """`((d - min d) / (max d - min d))^2` over all channels; 0 where all react alike."""
    low, high = reactions.aminmax()
    return ((reactions - low) / (high - low).clamp_min(torch.finfo(reactions.dtype).tiny)).square()


def _slopes(state: State, layers: list[MixtureLayer], x: Tensor, labels: Tensor) -> Tensor:
    """For each image, the gradient of its loss by weight and bias of each channel: `[N, channels, 2]`."""
    for layer in layers:
        layer.looking = True
    try:
        logits = state.forward(x, answering=False)
        loss = F.cross_entropy(logits.to(wide(logits.dtype)), labels, reduction="sum")
        leaves = [layer.slopes for layer in layers if layer.slopes]
        flat = [leaf for pair in leaves for leaf in pair]
        found = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
    finally:
        for layer in layers:
            layer.looking, layer.slopes = False, ()
    pairs = [torch.stack(found[place : place + 2], 2) for place in range(0, len(found), 2)]
    return torch.cat(pairs, 1)


def _cosines(own: Tensor, other: Tensor) -> Tensor:
    """Cosine of pairs `[..., 2]`, however small; 1 where both are zero."""
    tiny = torch.finfo(own.dtype).tiny
    alike = (F.normalize(own, dim=-1, eps=tiny) * F.normalize(other, dim=-1, eps=tiny)).sum(-1)
    return torch.where((own == 0).all(-1) & (other == 0).all(-1), 1.0, alike)
