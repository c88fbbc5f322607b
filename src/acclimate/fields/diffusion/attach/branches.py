"""Which forward of a denoising step this is: classifier-free guidance may need two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from acclimate.core.config import whole_or_none

__all__ = ["CONDITIONS", "Branches"]

CONDITIONS = ("encoder_hidden_states", "pooled_projections", "class_labels", "skip_layers")
"""Arguments of a forward in which the forwards of one step of guidance differ: text, class, or layers left out."""


class Branches:
    """Tells the forwards of guidance apart by what they are conditioned on.

    The two forwards of classifier-free guidance are trajectories of their own, so each has a base of its own. Where
    conditional and unconditional samples are one batch, there is one forward and one branch.

    A forward belongs to the branch that had the same conditions before. Conditions that none had are those of a new
    branch, number k + 1, if branch k just had the same timestep; else a new step begins and branch 0 has them from here
    on, as where a prompt changes in the course of an image. So neither timesteps that are equal once they are rounded,
    as in bfloat16, nor solvers that evaluate a timestep twice (Heun's) look like guidance.

    Arguments:
        count: forwards in each step; they take turns, whatever they are given. None to tell them by conditions.

    Raises:
        ValueError: no whole number of 1 or more.

    When it fails: two forwards of a step with the same text and class (one with perturbed attention, say), prompts that
    change while rounded timesteps do not, or guidance that begins late, and with its unconditional forward, go on from
    each other's base: changes, and with them errors, are larger than they need be. Give `count`, or set the branch.

    >>> branches, text, none = Branches(), torch.ones(2), torch.zeros(2)
    >>> [branches.next(t, {"encoder_hidden_states": c}) for t, c in ((9, text), (9, none), (8, text), (8, none))]
    [0, 1, 0, 1]
    """

    def __init__(self, count: int | None = None) -> None:
        whole_or_none(1, branches=count)
        self._count = count
        self._chosen: int | None = None
        self.reset()

    def choose(self, branch: int | None) -> None:
        """The branch of all forwards from now on, 0 or more; None to count again."""
        whole_or_none(0, branch=branch)
        self._chosen = branch

    def reset(self) -> None:
        """Before another image; a chosen branch stays."""
        self._known: list[tuple[Any, ...] | None] = []
        self._timestep: Tensor | float | None = None
        self._number = -1

    def next(self, timestep: Tensor | float | None, given: Mapping[str, Any] | None = None) -> int:
        """The branch of the forward that is about to begin.

        Arguments:
            timestep: that of the forward; of a tensor, the first entry counts. None is one of its own.
            given: arguments of the forward by name, of which `CONDITIONS` count. None where they are not known: then
                every forward with the timestep of the one before is another branch.
        """
        if self._chosen is not None:
            return self._chosen
        if self._count is not None:
            self._number = (self._number + 1) % self._count
            return self._number
        now = None if given is None else tuple(map(given.get, CONDITIONS))
        matching = [] if now is None else [number for number, known in enumerate(self._known) if _same(known, now)]
        if matching:
            self._number = matching[0]
        else:
            self._number = self._number + 1 if _at_once(timestep, self._timestep) else 0
            self._known[self._number : self._number + 1] = [None if now is None else tuple(map(_kept, now))]
        self._timestep = _kept(timestep)
        return self._number


def _kept(value: Any) -> Any:
    """A value as it is now, whatever is written into it later."""
    return value.detach().clone() if isinstance(value, Tensor) else value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        return alike and torch.equal(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _at_once(timestep: Any, before: Any) -> bool:
    """Whether two forwards are of one timestep; those without any are not."""
    return timestep is not None and before is not None and _first(timestep) == _first(before)


def _first(timestep: Tensor | float) -> float:
    return float(timestep.reshape(-1)[0]) if isinstance(timestep, Tensor) else float(timestep)
