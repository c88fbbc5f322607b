"""Which setting is in force at which iteration, the same on every rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from acclimate.fields.wide_area.policy.base import Policy
from acclimate.fields.wide_area.policy.conditions import Report, Setting
from acclimate.fields.wide_area.policy.controller import Controller
from acclimate.fields.wide_area.replicas.agreement import described, sampled

__all__ = ["Steering", "Wheel"]

Steering = Setting | Policy | Controller | Callable[[int], Setting]
"""One setting for good; a policy, or a controller that asks one; or the setting of each iteration."""

_PLANNED = 32
_NOISY = (Setting(1, 0.01), Setting(4, 0.1), Setting(8, 0.5))


class Wheel:
    """Keeps the setting that is in force, and puts the next one into force an iteration after it was decided [S: 6.4].

    Decisions rest on nothing but the headers of messages that were applied, which all ranks have.

    Arguments:
        given: see `Steering`. A bare policy gets a `Controller` with its defaults.
        dense_bits: S_g, for that controller.

    Raises:
        TypeError: none of these.

    >>> wheel = Wheel(lambda iteration: Setting(iteration, 1.0), dense_bits=32.0)
    >>> wheel.advance(1)
    >>> wheel.setting
    Setting(staleness=1, ratio=1.0)
    """

    def __init__(self, given: Steering, dense_bits: float) -> None:
        self.controller: Controller | None = None
        self._plan: Callable[[int], Setting] | None = None
        if isinstance(given, Policy):
            given = Controller(given, dense_bits)
        if isinstance(given, Controller):
            self.controller, self.setting = given, given.setting
        elif isinstance(given, Setting):
            self.setting = given
        elif callable(given):
            self._plan, self.setting = given, given(0)
        else:
            raise TypeError(f"found {given!r}; expected a Setting, a Policy, a Controller or a function of iterations.")

    def told(self) -> Any:
        """What decides, as JSON values for ranks to compare: all settings of a policy and its controller; of a function
        the first 32 settings."""
        if self._plan is not None:
            return sampled(self._plan, range(_PLANNED))
        if self.controller is None:
            return described(self.setting)
        policy = self.controller.policy
        # of a noise function only the name is known; six digits, since mathematical libraries differ in the last ones
        noise = sampled(lambda setting: f"{policy.noise_of(setting):.6g}", _NOISY)
        return [described(self.controller), noise]

    def observe(self, iteration: int, reports: Sequence[Report]) -> None:
        """Take in the headers of the message that was applied last in this iteration."""
        if self.controller is not None:
            self.controller.observe(iteration, reports)

    def advance(self, iteration: int) -> None:
        """Put into force what holds from this iteration on."""
        if self.controller is not None:
            self.setting = self.controller.setting
        elif self._plan is not None:
            self.setting = self._plan(iteration)

    @property
    def step_share(self) -> float:
        """What to multiply step sizes with."""
        return 1.0 if self.controller is None else self.controller.step_share

    def state_dict(self) -> dict[str, Any]:
        """JSON values; between two iterations. Settings that nobody decides on line are not part of it."""
        return {"controller": None if self.controller is None else self.controller.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` returned; `advance` then puts it into force. ValueError where only one of both has a
        controller."""
        if (state["controller"] is None) != (self.controller is None):
            raise ValueError("the checkpoint was written under another kind of policy. Build it as it was then.")
        if self.controller is not None:
            self.controller.load_state_dict(state["controller"])
