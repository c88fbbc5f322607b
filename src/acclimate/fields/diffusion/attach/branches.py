"""Which forward of a denoising step this is: classifier-free guidance may need two."""

from __future__ import annotations

from torch import Tensor

from acclimate.core.config import whole_or_none

__all__ = ["Branches"]


class Branches:
    """Counts the forwards that see one timestep: the first is branch 0, the next with the same timestep branch 1.

    The two forwards of classifier-free guidance are trajectories of their own, so each has a base of its own. Where
    conditional and unconditional samples are one batch, there is one forward and one branch.

    Arguments:
        count: forwards in each step; they take turns, whatever their timestep. None to count by timestep.

    Raises:
        ValueError: no whole number of 1 or more.

    When it fails: solvers that evaluate the same timestep twice in a row (Heun's) look like guidance; their forwards
    are told apart consistently, but each has a warm-up of its own. Give `count`, or set the branch.

    >>> branches = Branches()
    >>> [branches.next(timestep) for timestep in (900, 900, 800, 800)]
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
        self._last: float | None = None
        self._number = -1

    def next(self, timestep: Tensor | float | None) -> int:
        """The branch of the forward that is about to begin.

        Arguments:
            timestep: that of the forward; of a tensor, the first entry counts. None is branch 0.
        """
        if self._chosen is not None:
            return self._chosen
        if self._count is not None:
            self._number = (self._number + 1) % self._count
            return self._number
        value = None if timestep is None else _value(timestep)
        self._number = self._number + 1 if value is not None and value == self._last else 0
        self._last = value
        return self._number


def _value(timestep: Tensor | float) -> float:
    return float(timestep.reshape(-1)[0]) if isinstance(timestep, Tensor) else float(timestep)
