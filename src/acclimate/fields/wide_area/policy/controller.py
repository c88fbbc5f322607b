"""When a policy is asked, and how its answers come into force."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from acclimate.core.config import between, positive, whole
from acclimate.fields.wide_area.policy.base import Policy
from acclimate.fields.wide_area.policy.conditions import Conditions, Report, Setting, agreed
from acclimate.fields.wide_area.policy.guard import Guard
from acclimate.fields.wide_area.policy.period import period
from acclimate.fields.wide_area.policy.state import expect_keys

__all__ = ["FALLBACK", "Controller", "on_grid"]

FALLBACK = Setting(1, 0.01)
"""In force until something was measured. [I]"""


class Controller:
    """Asks a policy now and then, and keeps its settings steady. [I]

    A decision is due every `every` iterations, and at once when bandwidth differs by more than `jump` from that of the
    last decision, `|a / a_used - 1| > jump`, or when the guard allows less staleness than is in force. Staleness
    changes only if that improves the period or the noise by more than `hysteresis`, on `patience` decisions in a row;
    the first decision and the guard do not wait. The ratio follows each decision, rounded down to `grid ** -m`
    within what the policy allows.

    Everything depends on nothing but the calls: workers that pass the same reports have the same settings.

    Arguments:
        policy: the rule.
        dense_bits: S_g, above 0.
        guard: what caps staleness; `Guard()` by default.
        every: iterations, 1 or more.
        jump: relative, above 0.
        hysteresis: relative, in [0, 1).
        patience: decisions, 1 or more.
        grid: factor between ratios, above 1.
        fallback: in force before the first decision.

    Raises:
        ValueError: an argument out of range.

    Fails where bandwidth changes faster than messages arrive: decisions are as old as the message that carried the
    reports.

    >>> from acclimate.fields.wide_area.policy.deco import DeCo
    >>> controller = Controller(DeCo(), dense_bits=1.63e6)
    >>> controller.observe(0, [Report(0.05, 4e6, 0.1)] * 4).staleness
    3
    """

    def __init__(
        self,
        policy: Policy,
        dense_bits: float,
        *,
        guard: Guard | None = None,
        every: int = 10,
        jump: float = 0.2,
        hysteresis: float = 0.05,
        patience: int = 2,
        grid: float = 1.1,
        fallback: Setting = FALLBACK,
    ) -> None:
        whole(1, every=every, patience=patience)
        positive(dense_bits=dense_bits, jump=jump, grid=grid)
        if grid <= 1:
            raise ValueError(f"grid must be above 1, found {grid!r}.")
        between(0, 1 - 1e-9, hysteresis=hysteresis)
        self.policy, self.dense_bits, self.guard = policy, dense_bits, guard or Guard()
        self.setting = fallback
        self._every, self._jump, self._patience, self._grid = every, jump, patience, grid
        self._gain = 1 - hysteresis
        self._decided: int | None = None
        self._bandwidth = math.nan
        self._better = 0

    def observe(self, iteration: int, reports: Sequence[Report]) -> Setting:
        """The setting that is in force from the next iteration on.

        Arguments:
            iteration: index of the present one, 0 or more, rising from call to call.
            reports: from the headers of the message applied last, one of each worker. Where one of them knows too
                little nothing is decided.

        Raises:
            ValueError: no reports.
        """
        conditions = agreed(reports, self.dense_bits)
        if conditions is not None and self._due(iteration, conditions):
            self._decide(conditions)
            self._decided, self._bandwidth = iteration, conditions.bandwidth
        return self.setting

    def watch(self, step_size: float, norm: float, changes: tuple[float, float] | None = None) -> None:
        """Tell the guard of an update that was applied; arguments as for `Guard.watch`."""
        self.guard.watch(step_size, norm, changes, self.policy.stalest())

    @property
    def step_share(self) -> float:
        """What to multiply the step size with at the present staleness; see `Guard.step_share`."""
        return self.guard.step_share(self.setting.staleness)

    def _due(self, iteration: int, conditions: Conditions) -> bool:
        if self._decided is None or iteration - self._decided >= self._every:
            return True
        return abs(conditions.bandwidth / self._bandwidth - 1) > self._jump or self._too_stale()

    def _too_stale(self) -> bool:
        return self.setting.staleness > self._limited().stalest()

    def _limited(self) -> Policy:
        return self.policy if self.guard.cap is None else self.policy.limited(self.guard.cap)

    def _decide(self, conditions: Conditions) -> None:
        policy = self._limited()
        wanted = policy.decide(conditions)
        if self._decided is not None and wanted.staleness != self.setting.staleness and not self._too_stale():
            kept = policy.keeping(self.setting.staleness, conditions)
            self._better = self._better + 1 if self._improves(wanted, kept, conditions) else 0
            if self._better < self._patience:
                self._adopt(policy, kept)
                return
        self._better = 0
        self._adopt(policy, wanted)

    def _improves(self, wanted: Setting, kept: Setting, conditions: Conditions) -> bool:
        if period(wanted, conditions) < self._gain * period(kept, conditions):
            return True
        return self.policy.noise_of(wanted) < self._gain * self.policy.noise_of(kept)

    def _adopt(self, policy: Policy, setting: Setting) -> None:
        ratio = on_grid(setting.ratio, self._grid, *policy.rounds_within) if policy.adapts else setting.ratio
        self.setting = Setting(setting.staleness, ratio)
        self.guard.adopted(self.setting)

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as JSON values."""
        return {
            "staleness": self.setting.staleness,
            "ratio": self.setting.ratio,
            "decided": self._decided,
            "bandwidth": None if math.isnan(self._bandwidth) else self._bandwidth,
            "better": self._better,
            "guard": self.guard.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` returned. ValueError for anything else."""
        keys = ("staleness", "ratio", "decided", "bandwidth", "better", "guard")
        expect_keys(state, keys, "the controller")
        setting = Setting(state["staleness"], state["ratio"])
        self.guard.load_state_dict(state["guard"])
        self.setting, self._decided, self._better = setting, state["decided"], state["better"]
        self._bandwidth = math.nan if state["bandwidth"] is None else state["bandwidth"]


def on_grid(ratio: float, grid: float = 1.1, least: float = 0.0, dense: float = 1.0) -> float:
    """The largest `grid ** -m`, m a whole number of 0 or more, that is no larger than the ratio. [I]

    A ratio from `dense` on is left as it is, as that of a dense message; and none is rounded to less than `least`.

    >>> on_grid(1.0), round(on_grid(0.95), 4), on_grid(0.5, dense=0.5), on_grid(1e-3, least=1e-3)
    (1.0, 0.9091, 0.5, 0.001)
    """
    if ratio >= dense:
        return ratio
    steps = math.ceil(math.log(1 / ratio) / math.log(grid) - 1e-9)
    return max(grid**-steps, min(least, ratio))
