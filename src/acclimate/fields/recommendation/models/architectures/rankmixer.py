"""RankMixer: tokens that exchange pieces, and a network for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from acclimate.core.config import one_of, positive, whole, whole_or_none
from acclimate.fields.recommendation.models.parts.mlp import MLP
from acclimate.fields.recommendation.models.parts.tokens import PerToken, WholeNorm, mix
from acclimate.fields.recommendation.models.ranker import MLP_DIMS, Ranker, register

__all__ = ["RankMixer", "RankMixerLayer"]


class RankMixerLayer(nn.Module):
    """`x = N(mix(x) + x)`, then `x = N(x + PFFN(x))`, over tokens `[B, T, d]`; see `mix` and `PerToken`."""

    def __init__(self, tokens: int, width: int, hidden: int, norm: str) -> None:
        super().__init__()
        self.mixed_norm = nn.LayerNorm(width) if norm == "token" else WholeNorm()
        self.networks = PerToken(tokens, width, hidden)
        self.norm = nn.LayerNorm(width) if norm == "token" else WholeNorm()

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixed_norm(mix(x) + x)
        return self.norm(x + self.networks(x))


@register("rankmixer")
class RankMixer(Ranker):
    """`MLP(x_L)`, flattened, after L of `RankMixerLayer` over T tokens; `x_0` is the embeddings.

    Arguments:
        sizes: see `Ranker`.
        width: d, a multiple of T. `build` takes the next one.
        n_layers: L.
        expansion: hidden width of a token's network over d, above 0.
        norm: "token", over the d numbers of each token, with weights; or "tensor", over everything in the batch and
            without, as the reference has it. With "tensor" a score depends on the rows beside it: for parity only.
        tokens: T; None for the fields themselves, else a linear map of f makes them.
        mlp_dims, dropout, bn: of the last MLP, see `MLP`.

    Raises:
        ValueError: an argument out of range, or a width that is no multiple.

    Source: J. Zhu et al., RankMixer: Scaling Up Ranking Models in Industrial Recommenders, CIKM 2025.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "small": {**Ranker.presets["small"], "n_layers": 2},
    }

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        *,
        n_layers: int = 3,
        expansion: float = 2,
        norm: str = "token",
        tokens: int | None = None,
        mlp_dims: Sequence[int] = MLP_DIMS,
        dropout: float = 0.0,
        bn: bool = False,
    ) -> None:
        whole(1, n_layers=n_layers)
        whole_or_none(1, tokens=tokens)
        positive(expansion=expansion)
        one_of("token", "tensor", norm=norm)
        shape = {"n_layers": n_layers, "expansion": expansion, "norm": norm, "tokens": tokens}
        super().__init__(sizes, width, **shape, mlp_dims=mlp_dims, dropout=dropout, bn=bn)
        count = tokens or self.fields
        if width % count:
            raise ValueError(
                f"width={width} is no multiple of the {count} tokens; expected {-(-width // count) * count}, say, or "
                "a divisor of the width for `tokens`."
            )
        self.tokens = nn.Linear(self.flat, count * width) if tokens else None
        hidden = max(1, round(expansion * width))
        self.layers = nn.Sequential(*(RankMixerLayer(count, width, hidden, norm) for _ in range(n_layers)))
        self.mlp = MLP(count * width, mlp_dims, dropout=dropout, bn=bn, output=True)

    def score(self, embedded: Tensor) -> Tensor:
        if self.tokens is not None:
            embedded = self.tokens(embedded.flatten(1)).unflatten(1, (-1, self.width))
        return self.mlp(self.layers(embedded).flatten(1)).squeeze(1)

    @classmethod
    def fitting(cls, width: int, fields: int, options: Mapping[str, Any]) -> int:
        whole(1, width=width)
        whole_or_none(1, tokens=options.get("tokens"))
        count = options.get("tokens") or fields
        return -(-width // count) * count

    @classmethod
    def widened(cls, options: Mapping[str, Any], factor: float) -> dict[str, Any]:
        return {**super().widened(options, factor), "expansion": options["expansion"] * factor}

    @classmethod
    def deepened(cls, options: Mapping[str, Any], steps: int) -> dict[str, Any]:
        return {**options, "n_layers": options["n_layers"] + steps}
