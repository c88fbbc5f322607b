r"""How good label maps are: the confusion matrix, and what follows from it.

With $n_{tp}$ pixels of true class t predicted as p, the intersection over union of class c is
$n_{cc} / (\sum_p n_{cp} + \sum_t n_{tc} - n_{cc})$.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Confusion"]


class Confusion:
    """A confusion matrix that grows batch by batch, on the device of the answers and without a host sync.

    Labels outside `0..classes - 1` (-1 and 255, say) are void: what is answered there does not count.

    A class that does not occur in the truth of what was counted has no intersection over union and is left out of
    the mean, even where it was answered: such pixels already count against the classes they truly belong to.

    Arguments:
        classes: how many, 1 or more.

    Raises:
        ValueError: no classes.

    >>> counts = Confusion(2)
    >>> counts.add(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, -1]]]))
    >>> counts.iou().tolist(), round(counts.pixel_error(), 1)
    ([0.5, 0.5], 33.3)
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise ValueError(f"classes is {classes}; expected 1 or more.")
        self.classes = classes
        self._counts: Tensor | None = None

    def add(self, answers: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Arguments:
            answers: logits, floating point `[B, C, H, W]`, or predicted classes, whole numbers `[B, H, W]`.
            labels: whole numbers `[B, H, W]`.

        Raises:
            ValueError: shapes that do not fit each other or the number of classes.
        """
        if answers.is_floating_point():
            if answers.ndim != 4 or answers.shape[1] != self.classes:
                raise ValueError(
                    f"The answers have shape {list(answers.shape)}; expected logits [B, {self.classes}, H, W] or whole "
                    "numbers [B, H, W]."
                )
            answers = answers.argmax(1)
        if answers.shape != labels.shape:
            raise ValueError(
                f"The answers are for {list(answers.shape)} pixels, the labels for {list(labels.shape)}. Bring the "
                "logits to the size of the labels: torch.nn.functional.interpolate(logits, labels.shape[-2:], "
                'mode="bilinear").'
            )
        labels = labels.to(answers.device)
        known = (labels >= 0) & (labels < self.classes)
        nothing = self.classes**2  # one place more, for pixels that do not count
        place = torch.where(known, labels * self.classes + answers, nothing).flatten()
        if self._counts is None:
            self._counts = torch.zeros(nothing + 1, dtype=torch.int64, device=answers.device)
        self._counts.scatter_add_(0, place, torch.ones_like(place))

    def merge(self, other: Confusion) -> None:
        """Count all that the other has counted."""
        if other.classes != self.classes:
            raise ValueError(f"The other counts {other.classes} classes; expected {self.classes}.")
        if other._counts is not None:
            own = 0 if self._counts is None else self._counts
            self._counts = other._counts + own

    @property
    def matrix(self) -> Tensor:
        """Pixels by true class (rows) and answered class (columns): int64 `[C, C]` on the CPU."""
        if self._counts is None:
            return torch.zeros(self.classes, self.classes, dtype=torch.int64)
        return self._counts[:-1].view(self.classes, self.classes).cpu()

    def iou(self) -> Tensor:
        """Intersection over union of each class: float64 `[C]`, NaN where the truth lacks it."""
        matrix = self.matrix.to(torch.float64)
        both, truth = matrix.diagonal(), matrix.sum(1)
        union = truth + matrix.sum(0) - both
        return torch.where(truth > 0, both / union, torch.nan)

    def mean_iou(self) -> float:
        """Mean intersection over union of the classes in the truth, in percent; NaN if nothing was counted."""
        return 100 * float(self.iou().nanmean())

    def error(self) -> float:
        """100 minus the mean intersection over union."""
        return 100 - self.mean_iou()

    def pixel_error(self) -> float:
        """Share of the pixels that are named wrongly, in percent; NaN if nothing was counted."""
        matrix = self.matrix.to(torch.float64)
        return 100 * float(1 - matrix.diagonal().sum() / matrix.sum())
