"""The hook without processes: what ranks compare, what its guard does, and that after a fault nothing goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lockstep import EXACT

from acclimate.fields.wide_area.network.estimator import Estimator
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.controller import Controller
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.policy.fixed import Static
from acclimate.fields.wide_area.policy.guard import Guard
from acclimate.fields.wide_area.replicas.hook import DelayedHook
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.links.traces import constant
from acclimate.wire.faults import Disagreement, GarbledPacket, LinkFault
from acclimate.wire.simulated import world


class Bucket:
    """One that holds all gradients."""

    def __init__(self, parameters: list[torch.nn.Parameter], gradient: torch.Tensor) -> None:
        self.parameters, self.buffer = lambda: parameters, lambda: gradient
        self.index, self.is_last = lambda: 0, lambda: True


class Wrapped(torch.nn.Linear):
    """A model that hands its gradients over as DistributedDataParallel does, in one bucket."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.hook: Callable[..., Any] = lambda *_: None

    def register_comm_hook(self, state: object, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def backward(self, value: float) -> torch.Tensor:
        """What comes out of a backward whose gradients are all of this value."""
        return self.hook(None, Bucket(list(self.parameters()), torch.full((10,), value))).value()


def hooked(transport: Any, **given: Any) -> tuple[Wrapped, DelayedHook]:
    model: Any = Wrapped()
    usual: dict[str, Any] = {"entries": EXACT, "policy": Setting(1, 1.0)}
    return model, DelayedHook(model, transport=transport, **{**usual, **given})


def alone(**given: Any) -> tuple[Wrapped, DelayedHook]:
    return hooked(world(1, [(constant(1e6), 0.1)])[0], **given)


DIFFERENT: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "setting": ("the policy", lambda rank: {"policy": Setting(1 + rank, 1.0)}),
    "fields": ("the policy", lambda rank: {"policy": Static(staleness=1 + rank)}),
    "function": ("the policy", lambda rank: {"policy": lambda step: Setting(step * rank, 1.0)}),
    "entries": ("the entries", lambda rank: {"entries": Entries(values="float16") if rank else EXACT}),
    "parity": ("arguments", lambda rank: {"parity_every": rank}),
    "dense": ("arguments", lambda rank: {"dense_iterations": 1 + rank}),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_ranks_that_differ_do_not_start(name: str) -> None:
    what, given = DIFFERENT[name]
    first, second = world(2, [(constant(1e6), 0.1)])
    hooked(first, **given(0))
    with pytest.raises(Disagreement, match=what):
        hooked(second, **given(1))
    for transport in world(2, [(constant(1e6), 0.1)]):
        hooked(transport, **given(1))


@pytest.mark.parametrize("guard", [Guard(curvature=1.0), Guard(reference=2), Guard(share=0.3)])
def test_a_guard_that_needs_step_sizes_is_refused(guard: Guard) -> None:
    with pytest.raises(ValueError, match=r"does not know step sizes.* train with DeCoSGD"):
        alone(policy=Controller(DeCo(), 320.0, guard=guard))


def test_the_guard_halves_the_cap_of_staleness_on_divergence() -> None:
    """20 norms more than 20 times as large as the median of those before."""
    model, hook = alone(policy=Controller(Static(staleness=3, ratio=1.0), 320.0), dense_iterations=1)
    for step in range(60):
        assert hook.step_share == 1.0 and hook.setting.staleness in (1, 3), step
        model.backward(1.0)
    for _ in range(40):
        model.backward(30.0)
    assert hook.step_share == 0.5
    assert hook.setting.staleness == 1  # half of 3


class Certain(Estimator):
    """Of its bandwidth, or never."""

    certain = True

    @property
    def needs_probe(self) -> bool:
        return not self.certain


class Asking(Certain):
    certain = False


def test_probes_are_sent_when_a_rank_asks_for_them() -> None:
    """Five of 64 bytes beside each packet of 32 + 40 bytes, once in 100 iterations."""
    for estimator, probes in ((Asking(), 2), (Certain(), 1)):
        dense = Controller(Static(staleness=1, ratio=1.0), 320.0, fallback=Setting(1, 1.0))
        model, hook = alone(policy=dense, estimator=estimator)
        for _ in range(105):
            model.backward(1.0)
        sent = hook._exchange.sent_bits - 105 * 8 * 72  # pyright: ignore[reportPrivateUsage]
        assert sent == probes * 5 * 8 * 64


class Flipping:
    """Damages the packet of one iteration."""

    def __init__(self, number: int) -> None:
        (self._inner,) = world(1, [(constant(1e6), 0.1)])
        self._left = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def submit(self, packet: torch.Tensor) -> Any:
        self._left -= 1
        packet[40] ^= self._left == -1
        return self._inner.submit(packet)


def test_after_a_fault_the_next_forward_and_every_call_raise() -> None:
    model, hook = hooked(Flipping(3))
    state = hook.state_dict()
    for _ in range(4):
        model.backward(1.0)
    with pytest.raises(GarbledPacket, match="iteration 3"):
        model.backward(1.0)
    calls = (
        lambda: model(torch.ones(1, 4)),
        lambda: model.backward(1.0),
        lambda: hook.drain(lambda: None),
        hook.state_dict,
        lambda: hook.load_state_dict(state),
    )
    for call in calls:
        with pytest.raises(GarbledPacket, match=r"an earlier fault ended this run: .*iteration 3"):
            call()
    with torch.no_grad():
        model(torch.ones(1, 4))


def test_after_gradients_that_are_not_finite_every_call_raises() -> None:
    model, hook = alone()
    for _ in range(4):
        model.backward(1.0)
    with pytest.raises(ValueError, match="10 of 10 entries are NaN"):
        model.backward(np.nan)
    for call in (lambda: model(torch.ones(1, 4)), lambda: hook.drain(lambda: None), hook.state_dict):
        with pytest.raises(LinkFault, match="an earlier fault ended this run: 10 of 10"):
            call()


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "rank": ("rank is 1 in the checkpoint and 0 here", {"rank": 1}),
    "size": ("size is 4 in the checkpoint and 1 here", {"size": 4}),
    "shapes": (r"shapes is \[\[5, 2\]\] in the checkpoint", {"shapes": [[5, 2]]}),
    "entries": ("entries is None in the checkpoint", {"entries": None}),
}


@pytest.mark.parametrize("name", [*CHANGES, "queue", "policy"])
def test_foreign_states_are_refused_and_change_nothing(name: str) -> None:
    model, hook = alone()
    for _ in range(5):
        model.backward(1.0)
    state = hook.state_dict()
    assert [each["number"] for each in state["queue"]] == [4]
    if name in CHANGES:
        told, of = CHANGES[name]
        state = {**state, "of": {**state["of"], **of}}
    elif name == "queue":
        told, state = "messages of others", {**state, "step": 7}
    else:
        told, state = "another kind of policy", {**state, "wheel": {**state["wheel"], "controller": {}}}
    other, again = alone()
    other.load_state_dict(model.state_dict())
    before = str(again.state_dict())
    with pytest.raises(ValueError, match=told):
        again.load_state_dict(state)
    assert str(again.state_dict()) == before
    again.load_state_dict(hook.state_dict())
    assert again.in_flight == [4]
