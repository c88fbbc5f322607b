"""DCNv2: a cross network of full matrices beside an MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from acclimate.fields.recommendation.models.architectures.dcn import DCN
from acclimate.fields.recommendation.models.parts.cross import MatrixCross, VectorCross
from acclimate.fields.recommendation.models.ranker import register

__all__ = ["DCNv2"]


@register("dcnv2")
class DCNv2(DCN):
    """As `DCN`, with `x_{l+1} = x_0 * (W_l x_l + b_l) + x_l`, elementwise, W of full rank; arguments as there.

    Source: R. Wang et al., DCN V2, WWW 2021. Its matrices grow with the square of fields times width.
    """

    crossing: ClassVar[type[VectorCross | MatrixCross]] = MatrixCross

    @classmethod
    def deepened(cls, options: Mapping[str, Any], steps: int) -> dict[str, Any]:
        return {**options, "cross": options["cross"] + steps}
