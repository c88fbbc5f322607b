"""When decisions are made, what they wait for, and that workers make the same ones."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.fields.wide_area.policy.base import Policy
from acclimate.fields.wide_area.policy.conditions import Conditions, Report, Setting
from acclimate.fields.wide_area.policy.controller import FALLBACK, Controller, on_grid
from acclimate.fields.wide_area.policy.curvature import Curvature
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.policy.divergence import Divergence
from acclimate.fields.wide_area.policy.fixed import Static
from acclimate.fields.wide_area.policy.guard import Guard

DENSE = 1.63e6
USUAL = Report(0.05, 4e6, 0.1)


@dataclass(frozen=True, kw_only=True)
class ByLatency(Policy):
    """Staleness is the whole seconds of latency; the ratio tells at which bandwidth it was asked."""

    name: ClassVar[str] = "by_latency"

    def decide(self, conditions: Conditions) -> Setting:
        return Setting(int(conditions.latency), 1.1 ** -round(conditions.bandwidth))

    def stalest(self) -> int:
        return 100

    def noise_of(self, setting: Setting) -> float:
        return 1.0


def asked(controller: Controller, reports: list[Report]) -> list[int]:
    """Iterations after which the ratio is another."""
    changed: list[int] = []
    for iteration, report in enumerate(reports):
        before = controller.setting
        if controller.observe(iteration, [report]).ratio != before.ratio:
            changed.append(iteration)
    return changed


def test_decisions_come_every_so_often() -> None:
    growing = [Report(1.0, 100 * 1.005**step, 0.0) for step in range(65)]  # no more than 18 % in 32 steps
    assert asked(Controller(ByLatency(), 1.0), growing) == [0, 10, 20, 30, 40, 50, 60]
    assert asked(Controller(ByLatency(), 1.0, every=32), growing) == [0, 32, 64]


@pytest.mark.parametrize(("share", "at_once"), [(1.19, False), (1.21, True), (0.81, False), (0.79, True)])
def test_a_jump_of_bandwidth_is_answered_at_once(share: float, at_once: bool) -> None:
    reports = [Report(1.0, 100.0, 0.0)] * 6 + [Report(1.0, 100.0 * share, 0.0)] * 30
    assert asked(Controller(ByLatency(), 1.0), reports) == ([0, 6] if at_once else [0, 10])


def test_nothing_is_decided_while_somebody_knows_too_little() -> None:
    controller = Controller(DeCo(), DENSE)
    assert controller.observe(0, [USUAL, Report(0.05, math.nan, 0.1)]) == FALLBACK == Setting(1, 0.01)
    assert controller.observe(1, [USUAL, USUAL]).staleness == 3
    with pytest.raises(ValueError, match="no reports"):
        controller.observe(2, [])


def test_staleness_waits_for_a_second_decision_and_the_ratio_does_not() -> None:
    controller = Controller(DeCo(), DENSE, every=20)
    for iteration in range(20):
        before = controller.observe(iteration, [USUAL])
    later = Report(0.05, 4e6, 0.2)  # staleness 5 hides it; 3 does not
    wanted = DeCo().decide(Conditions(0.05, 4e6, 0.2, DENSE))
    kept = DeCo().keeping(3, Conditions(0.05, 4e6, 0.2, DENSE))
    seen = [controller.observe(iteration, [later]) for iteration in range(20, 61)]
    assert before.staleness == 3 and wanted.staleness == 5
    assert [each.staleness for each in seen] == [3] * 20 + [5] * 21
    assert seen[0].ratio == on_grid(kept.ratio) != before.ratio and seen[20].ratio == on_grid(wanted.ratio)


def test_a_change_that_is_withdrawn_is_forgotten() -> None:
    controller = Controller(DeCo(), DENSE, every=1)
    later = Report(0.05, 4e6, 0.2)
    seen = [controller.observe(i, [each]).staleness for i, each in enumerate([USUAL, later, USUAL, later, USUAL])]
    assert seen == [3] * 5


def test_small_gains_change_nothing() -> None:
    controller = Controller(ByLatency(), 1.0, every=1)
    computing = [Report(10.0, 1.0, each) for each in (3.5, 4.5, 5.5, 4.5, 4.5)]  # compute takes longest, whatever tau
    assert {controller.observe(i, [each]).staleness for i, each in enumerate(computing)} == {3}


def test_constant_rules_are_not_rounded() -> None:
    controller = Controller(Static(staleness=1, ratio=0.02), DENSE)
    assert controller.observe(0, [USUAL]) == Setting(1, 0.02)


@given(st.floats(1e-4, 1))
def test_the_grid(ratio: float) -> None:
    found = on_grid(ratio)
    assert found <= ratio * (1 + 1e-9) and found * 1.1 > ratio * (1 - 1e-9)
    assert on_grid(found) == found
    assert math.log(1 / found) / math.log(1.1) == pytest.approx(round(math.log(1 / found) / math.log(1.1)), abs=1e-9)


def test_workers_with_measurements_of_their_own_decide_alike() -> None:
    """All pass on what the headers say; what each measured itself enters by its header alone."""
    generator = np.random.default_rng(3)
    controllers = [Controller(DeCo(), DENSE) for _ in range(4)]
    for iteration in range(300):
        wave = 1 + 0.8 * math.sin(iteration / 30)
        headers = [
            Report(
                0.05 * generator.uniform(1, 1.2), 4e6 * wave * generator.uniform(0.9, 1.1), generator.uniform(0, 0.3)
            )
            for _ in controllers
        ]
        found = {controller.observe(iteration, headers) for controller in controllers}
        assert len(found) == 1
    assert len({json.dumps(controller.state_dict()) for controller in controllers}) == 1


def test_the_guard_caps_staleness_and_does_not_wait() -> None:
    free = Controller(DeCo(most_stale=40), DENSE)
    far = Report(0.05, 4e6, 0.5)
    assert free.observe(0, [far]).staleness == 11
    guarded = Controller(DeCo(most_stale=40), DENSE, guard=Guard(curvature=1.0))
    guarded.watch(step_size=0.2, norm=1.0)
    found = guarded.observe(0, [far])
    assert found.staleness == 3  # 0.2 < 0.5 * 0.445, and not 0.5 * 0.347
    assert found.ratio == on_grid(DeCo(most_stale=3).decide(Conditions(0.05, 4e6, 0.5, DENSE)).ratio)
    late = Controller(DeCo(most_stale=40), DENSE, guard=Guard(curvature=1.0))
    late.observe(0, [far])
    late.watch(step_size=0.2, norm=1.0)
    assert late.observe(1, [far]).staleness == 3


def test_divergence_halves_cap_and_step_size_once() -> None:
    controller = Controller(DeCo(), DENSE)
    controller.observe(0, [Report(0.05, 4e6, 0.3)])
    assert controller.setting.staleness == 7 and controller.step_share == 1
    for norm in [1.0] * 40 + [7.0] * 20 + [1e9] * 100:
        controller.watch(0.1, norm)
    assert controller.guard.cap == 4 and controller.step_share == 0.5
    assert controller.observe(1, [Report(0.05, 4e6, 0.3)]).staleness == 4


def test_step_sizes_follow_staleness_where_a_reference_is_given() -> None:
    controller = Controller(DeCo(), DENSE, guard=Guard(reference=1))
    controller.observe(0, [USUAL])
    assert controller.step_share == pytest.approx(math.sin(math.pi / 14) / math.sin(math.pi / 6))


def test_curvature_of_a_quadratic_is_found() -> None:
    curvature = Curvature()
    for step in range(10):
        curvature.observe(0.7 * 0.5**step, 0.5**step)
    assert curvature.value == pytest.approx(0.7)
    curvature.observe(7000.0, 1.0)  # an outlier
    assert curvature.value == pytest.approx(0.7)
    for nothing in ((0.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1e300, 1e-300)):
        curvature.observe(*nothing)
    assert curvature.value == pytest.approx(0.7)
    guard = Guard()
    guard.watch(0.2, 1.0)
    assert guard.cap is None
    guard.watch(0.2, 1.0, (1.0, 1.0))
    assert guard.cap == 3


def test_divergence_is_noticed_only_where_there_is_some() -> None:
    steady, rising = Divergence(), Divergence()
    generator = np.random.default_rng(0)
    assert not any(steady.observe(float(norm)) for norm in generator.uniform(0.5, 2, 500))
    told = [rising.observe(1.0 if step < 100 else 25.0) for step in range(200)]
    # the median of twenty is above 20 once eleven of them are: ten give (1 + 25) / 2
    assert [step for step, each in enumerate(told) if each] == [110]
    assert Divergence().observe(math.nan)
    hard = Divergence()
    assert not any(hard.observe(1000.0 if step % 30 < 5 else 1.0) for step in range(300))  # a few hard batches


def test_another_setting_begins_anew() -> None:
    guard = Guard()
    for _ in range(60):
        guard.watch(0.1, 1.0)
    guard.adopted(Setting(3, 0.1))
    for _ in range(60):
        guard.watch(0.1, 100.0)
    assert not guard.diverged
    guard.adopted(Setting(3, 0.15))  # less than twice as many entries
    for _ in range(60):
        guard.watch(0.1, 1e4)
    assert guard.diverged


def test_a_saved_controller_goes_on_as_if_nothing_was() -> None:
    def reports(iteration: int) -> list[Report]:
        return [Report(0.05, 4e6 * (1 + 0.8 * math.sin(iteration / 40)), 0.1 + 0.1 * (iteration > 70))]

    def step(controller: Controller, iteration: int) -> Setting:
        controller.watch(0.1, 1.0 + iteration % 3, (1.0 + iteration % 5, 4.0))
        return controller.observe(iteration, reports(iteration))

    one, other = Controller(DeCo(), DENSE), Controller(DeCo(), DENSE)
    for iteration in range(85):
        step(one, iteration)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert other.setting == one.setting
    assert [step(one, i) for i in range(85, 200)] == [step(other, i) for i in range(85, 200)]
    assert one.state_dict() == other.state_dict()


def test_foreign_states_are_refused() -> None:
    controller = Controller(DeCo(), DENSE)
    with pytest.raises(ValueError, match=r"holds weights; expected .*staleness"):
        controller.load_state_dict({"weights": 1})
    with pytest.raises(ValueError, match="ratio"):
        controller.load_state_dict({**controller.state_dict(), "ratio": 7})


def test_arguments_out_of_range_are_named() -> None:
    for name, bad in (("every", 0), ("patience", 0), ("jump", 0), ("hysteresis", 1), ("grid", 1.0)):
        with pytest.raises(ValueError, match=name):
            Controller(DeCo(), DENSE, **{name: bad})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dense_bits"):
        Controller(DeCo(), 0)
    with pytest.raises(ValueError, match="share"):
        Guard(share=2)


def test_a_dense_ratio_stays_dense_and_the_smallest_allowed_is_kept() -> None:
    halves = {"value_bits": 16, "bits_per_entry": 48}
    fast, slow = [Report(0.1, 1e9, 0.0)], [Report(0.1, 1.0, 0.0)]
    assert Controller(DeCo(**halves), DENSE).observe(0, fast).ratio == 0.5  # type: ignore[arg-type]
    assert Controller(DeCo(least=0.02), DENSE).observe(0, slow).ratio == 0.02
    assert Controller(DeCo(), DENSE).observe(0, fast).ratio == 1.0
