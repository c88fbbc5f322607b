"""How much staleness training bears: the stability limit and the divergence monitor as one cap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.core.config import between, positive, whole_or_none
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.curvature import Curvature
from acclimate.fields.wide_area.policy.divergence import Divergence
from acclimate.fields.wide_area.policy.stability import most_stale, step_share
from acclimate.fields.wide_area.policy.state import expect_keys

__all__ = ["Guard"]


class Guard:
    """Caps staleness at the largest tau with `gamma h < share * limit(tau)`, and at half of that after divergence. [I]

    h is the curvature given, or else estimated; without either there is no cap. On divergence, cap and step size are
    halved once. All it is told is the same on all workers, so they cap alike.

    Arguments:
        curvature: h of the loss; None estimates it.
        share: of the stability limit that may be used up, in (0, 1].
        reference: the staleness the step size was tuned at, for `step_share`; None leaves step sizes be.

    Raises:
        ValueError: an argument out of range.

    >>> guard = Guard(curvature=1.0)
    >>> guard.watch(step_size=0.2, norm=1.0)
    >>> guard.cap
    3
    """

    def __init__(self, curvature: float | None = None, *, share: float = 0.5, reference: int | None = None) -> None:
        positive(share=share, **({} if curvature is None else {"curvature": curvature}))
        between(0, 1, share=share)
        whole_or_none(0, reference=reference)
        self._known, self._share, self._reference = curvature, share, reference
        self._curvature, self._divergence = Curvature(), Divergence()
        self._stable: int | None = None
        self._halved: int | None = None
        self._since: Setting | None = None

    @property
    def cap(self) -> int | None:
        """The most staleness allowed; None where nothing is known against any."""
        caps = [each for each in (self._stable, self._halved) if each is not None]
        return min(caps, default=None)

    @property
    def diverged(self) -> bool:
        """Whether divergence was noticed, ever."""
        return self._divergence.noticed

    def adopted(self, setting: Setting) -> None:
        """Take in the setting that is in force from now on.

        Updates of twice as many entries, or after a change of staleness, are longer without anything being wrong, so
        the divergence monitor then begins anew.
        """
        before = self._since
        if before is None or setting.staleness != before.staleness or not 0.5 < setting.ratio / before.ratio < 2:
            self._since = setting
            self._divergence.restart()

    def watch(
        self, step_size: float, norm: float, changes: tuple[float, float] | None = None, stalest: int = 8
    ) -> None:
        """Take in an update that was applied.

        Arguments:
            step_size: gamma, above 0; 0 leaves the limit as it was.
            norm: |u|.
            changes: |u - u before| and |x - x before|, for the estimate.
            stalest: the cap that there was without the guard, which divergence halves.
        """
        if changes is not None:
            self._curvature.observe(*changes)
        curvature = self._known or self._curvature.value
        if curvature and step_size:
            self._stable = most_stale(step_size, curvature, self._share)
        if self._divergence.observe(norm):
            self._halved = min(stalest, stalest if self._stable is None else self._stable) // 2

    def step_share(self, staleness: int) -> float:
        """What to multiply the step size with: 1/2 after divergence, and `stability.step_share` with a reference."""
        scaled = 1.0 if self._reference is None else step_share(staleness, self._reference)
        return scaled / 2 if self.diverged else scaled

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as JSON values."""
        return {
            "stable": self._stable,
            "halved": self._halved,
            "curvature": self._curvature.state_dict(),
            "divergence": self._divergence.state_dict(),
            "since": None if self._since is None else [self._since.staleness, self._since.ratio],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` returned. ValueError for anything else."""
        expect_keys(state, ("stable", "halved", "curvature", "divergence", "since"), "the guard")
        self._curvature.load_state_dict(state["curvature"])
        self._divergence.load_state_dict(state["divergence"])
        self._stable, self._halved = state["stable"], state["halved"]
        self._since = None if state["since"] is None else Setting(*state["since"])
