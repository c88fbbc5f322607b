"""What COSMIC would reach if its fusion weights were chosen on test labels, as the released code does: an oracle.

Nothing here is for use: whoever has the labels of a stream need not adapt to it. It exists since published numbers of
COSMIC are such, so that reproductions can stand beside them, marked as oracles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from acclimate.core.state import State
from acclimate.fields.vision_language.entry import adapt
from acclimate.fields.vision_language.evaluation import call, placed
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.samples import Sample
from acclimate.streams.stream import Batch

__all__ = ["GRID", "WeightGrid", "oracle_weights", "transfer"]

GRID = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Values that each of the two weights beside 1 takes in the released search."""

_ONE = GRID.index(1.0)


@dataclass(frozen=True, slots=True)
class WeightGrid:
    """Right answers under every pair of weights.

    Arguments:
        correct: `[14, 14]`, by the weight of CLIP's cliques, then of the auxiliary ones, both in the order of `GRID`.
        scored: answers in all.
    """

    correct: tuple[tuple[int, ...], ...]
    scored: int

    @property
    def best(self) -> tuple[float, float, float]:
        """The ORACLE's weights: those of most right answers; of several, the nearest to (1, 1, 1) on the grid."""
        most = max(max(row) for row in self.correct)
        places = [(i, j) for i, row in enumerate(self.correct) for j, count in enumerate(row) if count == most]
        clip, auxiliary = min(places, key=lambda place: abs(place[0] - _ONE) + abs(place[1] - _ONE))
        return 1.0, GRID[clip], GRID[auxiliary]

    def top1(self, weights: tuple[float, float, float]) -> float:
        """Right answers in percent under weights of the grid. ValueError for others."""
        first, clip, auxiliary = weights
        if first != 1 or clip not in GRID or auxiliary not in GRID:
            raise ValueError(f"found weights {weights}, expected 1 and two of {', '.join(f'{g:g}' for g in GRID)}.")
        return 100 * self.correct[GRID.index(clip)][GRID.index(auxiliary)] / self.scored


def oracle_weights(
    model: VisionLanguage,
    batches: Iterable[Batch],
    method: COSMIC | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> WeightGrid:
    """ORACLE. One pass of COSMIC, counting right answers on these labels under all pairs of weights of the grid.

    Its caches and cliques do not depend on the weights, so the count under a pair is that of a pass with this pair.
    Where rows of a batch were held at the source, all of it counts as it was answered, whatever the weights.

    Arguments as of `evaluate` and `adapt`; `method` COSMIC's other settings, those of its weights counting for nothing
    but whether the third is 0: then there is no auxiliary part, and its weight changes nothing.

    Raises ValueError for another method and for a stream without known labels. Cost: COSMIC's, and 196 K additions for
    each image.

    >>> from acclimate.fields.vision_language import Features
    >>> features = Features(clip=torch.eye(4), auxiliary=torch.eye(4), text=torch.eye(4), labels=torch.arange(4))
    >>> grid = oracle_weights(features.model(), features.batches())
    >>> grid.best, grid.top1(grid.best)
    ((1.0, 1.0, 1.0), 100.0)
    """
    method = COSMIC() if method is None else method
    if not isinstance(method, COSMIC):
        raise ValueError(f"found {method!r}, expected COSMIC with settings of your own: oracle_weights(..., COSMIC()).")
    telling = _Telling(**{each.name: getattr(method, each.name) for each in fields(COSMIC)})
    adapted = adapt(model, method=telling, seed=seed)
    correct, scored, images = torch.zeros(len(GRID), len(GRID), dtype=torch.int64), 0, 0
    for batch in batches:
        telling.told.clear()
        answers = call(adapted, placed(adapted, batch)).argmax(1).cpu()
        whole = len(telling.told) == len(answers) and adapted.last is not None and adapted.last.held == 0
        for place, label in enumerate(batch.labels.tolist()):
            if label >= 0:
                scored += 1
                correct += (_weighed(telling.told[place]) if whole else answers[place]) == label
        images += len(answers)
        if progress is not None:
            progress(images)
    if not scored:
        raise ValueError(f"found no known label in {images} images, and an oracle knows nothing but labels.")
    return WeightGrid(tuple(map(tuple, correct.tolist())), scored)


def transfer(chosen: WeightGrid, other: WeightGrid) -> float:
    """Top-1 in percent on one stream with the weights that the labels of another would choose."""
    return other.top1(chosen.best)


@dataclass(frozen=True, kw_only=True)
class _Telling(COSMIC):
    """COSMIC that leaves the parts of each answer, `[2, K]` or `[3, K]`, for others to weigh."""

    told: list[Tensor] = field(default_factory=list[Tensor], metadata={"recorded": False})

    def parts(self, state: State, sample: Sample, *, learn: bool) -> tuple[Tensor, ...]:
        found = super().parts(state, sample, learn=learn)
        self.told.append(torch.stack(found))
        return found


def _weighed(parts: Tensor) -> Tensor:
    """Classes under all weights, `[14, 14]`."""
    values = torch.tensor(GRID)
    scores = (parts[0] + values[:, None] * parts[1])[:, None]
    if len(parts) > 2:
        scores = scores + values[:, None] * parts[2]
    return scores.argmax(-1).expand(len(GRID), len(GRID))
