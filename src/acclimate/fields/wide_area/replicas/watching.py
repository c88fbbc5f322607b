"""What the guard is told of updates."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from acclimate.fields.wide_area.policy.controller import Controller

__all__ = ["Watch"]


class Watch:
    """Tells a controller the norm of each applied update, and on request how curved the loss looks.

    Norms are summed in float64 by one thread, so that ranks with different numbers of threads find the same.

    Arguments:
        controller: whose guard it is for.
        curvature: whether to compare successive updates and weights, `|u - u'| / |x - x'|` [I: 5.5]; that keeps two
            vectors more.
    """

    def __init__(self, controller: Controller, *, curvature: bool) -> None:
        self._controller, self._curvature = controller, curvature
        self._update: Tensor | None = None
        self._moved = math.nan

    @property
    def needs_weights(self) -> bool:
        return self._curvature

    def applied(self, step_size: float, update: Tensor, before: Tensor | None, after: Tensor | None) -> None:
        """Take in an update `[d]`, and the weights `[d]` before and after it where they are needed."""
        changes = None
        if self._curvature and self._update is not None:
            changes = (_norm(update - self._update), self._moved)
        self._controller.watch(step_size, _norm(update), changes)
        if self._curvature and before is not None and after is not None:
            self._update, self._moved = update.clone(), _norm(after - before)

    def tensors(self) -> tuple[Tensor | None, float]:
        """What a checkpoint needs: the last update, and how far it moved the weights."""
        return self._update, self._moved

    def load(self, update: Tensor | None, moved: float) -> None:
        self._update, self._moved = update, moved


def _norm(vector: Tensor) -> float:
    return math.sqrt(np.square(vector.detach().to("cpu", torch.float64).numpy()).sum())
