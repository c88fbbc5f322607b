"""FM: pairs of fields, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from acclimate.fields.recommendation.models.parts.pairs import factorised
from acclimate.fields.recommendation.models.ranker import Ranker, register

__all__ = ["FM"]


@register("fm")
class FM(Ranker):
    r"""$\sum_{i<j} \langle e_i, e_j \rangle$, without bias or first-order term.

    Source: S. Rendle, Factorization Machines, ICDM 2010. A cheap baseline: interactions of three fields and more are
    beyond it.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"published": {}, "small": {}}

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__(sizes, width)

    def score(self, embedded: Tensor) -> Tensor:
        return factorised(embedded)
