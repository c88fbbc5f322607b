"""DeepFM: FM beside an MLP, over the same embeddings."""

from __future__ import annotations

from torch import Tensor

from acclimate.fields.recommendation.models.architectures.fnn import FNN
from acclimate.fields.recommendation.models.parts.pairs import factorised
from acclimate.fields.recommendation.models.ranker import register

__all__ = ["DeepFM"]


@register("deepfm")
class DeepFM(FNN):
    r"""$\mathrm{MLP}(f) + \sum_{i<j} \langle e_i, e_j \rangle$; arguments as for `FNN`.

    Source: H. Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction, IJCAI 2017; here
    without its first-order term.
    """

    def score(self, embedded: Tensor) -> Tensor:
        return super().score(embedded) + factorised(embedded)
