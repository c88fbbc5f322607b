"""BN: statistics from the stream, weights untouched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from acclimate.anatomy import batch_norms
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import normalizations
from acclimate.core.state import State

__all__ = ["BN"]


@methods.register("bn")
@dataclass(frozen=True, kw_only=True)
class BN(Method):
    """Re-estimate batch norm statistics on the stream; learn nothing else.

    With the default `normalization="batch"` each batch is normalised by its own mean and biased variance
    (BN-1). `bn:alpha` mixes in 0.9 of the source's statistics, for small batches; `bn:ema` follows
    the stream with running statistics, at two forwards a batch; `bn:find` normalises groups of alike samples, for
    batches of several domains. Any other normalisation goes with `normalization=`.

    Cost: one forward (`ema`: two), no backward, no state (`ema`: two vectors per layer).
    Raises ValueError for a model without batch norm.
    Source: Schneider et al., NeurIPS 2020; Nado et al., 2020.
    Fails when batches are small, sorted by label, or mix several domains: their statistics are then not
    those of the shift.

    Example: `acclimate.adapt(net, "bn:alpha")`.
    """

    card: ClassVar[Card] = Card(
        summary="normalises by statistics of the stream instead of the source's",
        paper="Schneider et al., NeurIPS 2020",
        needs=frozenset({"batch norm"}),
        batch_of_one="poor; use bn:alpha",
        fails_when="batches are small, label-sorted or of mixed domains",
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "alpha": {"normalization": "alpha"},
        "ema": {"normalization": "ema"},
        "find": {"normalization": "find"},
    }

    def setup(self, state: State) -> None:
        name = normalizations.build(self.normalization).name
        state.require(
            bool(batch_norms(state.model)),
            f"the statistics of batch normalisation layers, here by normalization={name!r}",
        )

    def cost(self) -> Cost:
        return Cost(forwards=1 + normalizations.build(self.normalization).passes(), backwards=0, bound=1)
