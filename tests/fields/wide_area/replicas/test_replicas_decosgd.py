"""The optimiser against the algorithm written out with numpy, bit for bit, and what must hold on every path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lockstep import EXACT, START, Base, D, WrittenOut, adam, build, gradient, momentum, sgd, turn

from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.replicas.checkpoint import load_checkpoint, save_checkpoint
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.replicas.steering import Steering
from acclimate.links.traces import constant, sine
from acclimate.wire.faults import Disagreement
from acclimate.wire.simulated import world

BASES = pytest.mark.parametrize("base", [sgd, momentum, adam])


def kept(ratio: float) -> int:
    """Of float64 values with int32 indices: beta = 96, S = 64 d."""
    return D if ratio == 1.0 else max(1, int(ratio * 64 * D / 96 + 1e-6))


@BASES
def test_no_delay_and_no_compression_is_synchronous_sgd(base: Base) -> None:
    workers = build(3, base, policy=Setting(0, 1.0))
    y = torch.nn.Parameter(torch.from_numpy(START.copy()))
    plain = base([y])
    for step in range(25):
        turn(workers)
        total = np.zeros(D)
        for rank in range(3):
            total += gradient(rank, step, y.detach().numpy())
        y.grad = torch.from_numpy(total / 3)
        plain.step()
    for training, x in workers:
        training.drain()
        assert torch.equal(x, y)


def test_no_delay_is_top_k_with_error_feedback() -> None:
    workers = build(2, policy=Setting(0, 0.2))
    x, e = START.copy(), np.zeros((2, D))
    y = torch.nn.Parameter(torch.from_numpy(x))
    plain = sgd([y])
    for step in range(25):
        turn(workers)
        u = np.zeros(D)
        for rank in range(2):
            v = e[rank] + gradient(rank, step, y.detach().numpy())
            largest = np.sort(np.argsort(-np.abs(v), kind="stable")[: kept(0.2)])
            sent = np.zeros(D)
            sent[largest] = v[largest]
            e[rank] = v - sent
            u += sent
        y.grad = torch.from_numpy(u / 2)
        plain.step()
    for rank, (training, each) in enumerate(workers):
        training.drain()
        assert torch.equal(each, y)
        assert training.error.tolist() == e[rank].tolist()


@BASES
@pytest.mark.parametrize("staleness", range(6))
def test_no_compression_is_delayed_sgd(staleness: int, base: Base) -> None:
    workers = build(2, base, policy=Setting(staleness, 1.0))
    y = torch.nn.Parameter(torch.from_numpy(START.copy()))
    plain, computed = base([y]), []
    for step in range(15):
        if step > staleness:
            y.grad = torch.from_numpy(computed[step - 1 - staleness])
            plain.step()
        computed.append((gradient(0, step, y.detach().numpy()) + gradient(1, step, y.detach().numpy())) / 2)
        turn(workers)
        for _, x in workers:
            assert torch.equal(x, y)
            assert step > staleness or x.tolist() == START.tolist()


@BASES
@pytest.mark.parametrize(("staleness", "ratio"), [(1, 0.1), (3, 0.4), (5, 0.02)])
def test_both_at_once(staleness: int, ratio: float, base: Base) -> None:
    workers, other = build(3, base, policy=Setting(staleness, ratio)), WrittenOut(3, base)
    for _ in range(20):
        turn(workers)
        other.iterate(staleness, kept(ratio))
        for rank, (training, x) in enumerate(workers):
            assert torch.equal(x, other.x)
            assert training.error.tolist() == other.e[rank].tolist()


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.05, 0.2, 0.7, 1.0])), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_settings_may_change_at_any_time(trace: list[tuple[int, float]]) -> None:
    """Every message once and in order, nothing lost, and never more than tau + 1 under way."""
    seen: list[int] = []

    def note(number: int) -> float:
        seen.append(number)
        return 1.0

    def plan(step: int) -> Setting:
        return Setting(*trace[min(step, len(trace) - 1)])

    workers, other = build(2, policy=plan), WrittenOut(2)
    alone = build(1, policy=plan, schedule=note)
    seen.clear()  # of what was asked for at the start
    for staleness, ratio in trace:
        turn(workers)
        turn(alone)
        other.iterate(staleness, kept(ratio))
        for training, x in workers:
            assert torch.equal(x, other.x)
            assert len(training.in_flight) <= staleness + 1
    for training, _ in (*workers, *alone):
        training.drain()
    assert seen == list(range(len(trace)))
    sent = 2 * (START - workers[0][1].detach().numpy()) / 0.05
    left = sum(training.error.numpy() for training, _ in workers)
    np.testing.assert_allclose(sent + left, other.gradients, atol=1e-10)


def test_learning_rates_follow_the_message_not_the_iteration() -> None:
    factors = [1.0, 0.5, 0.25, 0.0, 2.0, 1.0]
    workers = build(1, policy=Setting(2, 1.0), schedule=factors.__getitem__)
    y = torch.nn.Parameter(torch.from_numpy(START.copy()))
    computed = []
    for step in range(6):
        if step > 2:
            plain = torch.optim.SGD([y], lr=0.05 * factors[step - 3])
            y.grad = torch.from_numpy(computed[step - 3])
            plain.step()
        computed.append(gradient(0, step, y.detach().numpy()))
        turn(workers)
        assert torch.equal(workers[0][1], y)
    assert workers[0][0].base.param_groups[0]["lr"] == 0.05


def test_ranks_with_different_networks_decide_alike() -> None:
    links = [(sine(4000.0, period=5.0), 0.1), (sine(6000.0, period=7.0), 0.05), (constant(5000.0), 0.12)]
    workers = build(3, links=links, policy=DeCo())
    found = []
    for _ in range(150):
        turn(workers, [0.05, 0.06, 0.04])
        assert len({training.setting for training, _ in workers}) == 1
        assert all(torch.equal(x, workers[0][1]) for _, x in workers)
        found.append(workers[0][0].setting)
    assert len(set(found)) > 3
    assert found[0] == Setting(1, 0.01)
    reports = [training._exchange.estimator.report() for training, _ in workers]  # pyright: ignore[reportPrivateUsage]
    assert len({each.compute for each in reports}) == 3


def test_a_guard_that_estimates_curvature_holds_staleness_back() -> None:
    """At a step size of 0.6 and curvatures up to 1, half of the limit allows no staleness of 3."""
    links = [(constant(1e6), 0.2)]
    free = build(2, links=links, policy=DeCo())
    noticed = build(2, lambda params: torch.optim.SGD(params, lr=0.6), links=links, policy=DeCo(), curvature=True)
    for _ in range(60):
        for workers in (free, noticed):
            turn(workers)
    assert free[0][0].setting.staleness > noticed[0][0].setting.staleness
    assert noticed[0][0].setting == noticed[1][0].setting
    assert torch.equal(noticed[0][1], noticed[1][1])


def handed_over(first: list[Any], again: list[Any], folder: Path) -> None:
    """Each worker's checkpoint, through a file of its own."""
    for rank, (training, _) in enumerate(first):
        save_checkpoint(training, folder / f"{rank}.safetensors")
    for rank, (training, _) in enumerate(again):
        load_checkpoint(training, folder / f"{rank}.safetensors")


@BASES
def test_a_checkpoint_goes_on_bit_for_bit(base: Base, tmp_path: Path) -> None:
    through, first, again = (build(2, base, policy=Setting(3, 0.1), parity_every=4) for _ in range(3))
    for _ in range(20):
        turn(through)
    for _ in range(9):
        turn(first)
    handed_over(first, again, tmp_path)
    for one, other in zip(first, again, strict=True):
        assert one[0].in_flight == other[0].in_flight != []
    for _ in range(11):
        turn(again)
    for one, other in zip(through, again, strict=True):
        assert one[0].drain() == other[0].drain()
        assert torch.equal(one[1], other[1])
        assert torch.equal(one[0].error, other[0].error)


def switched(iteration: int) -> Setting:
    return Setting(2, 0.3) if iteration < 5 else Setting(0, 1.0)


@pytest.mark.parametrize("policy", [Setting(0, 1.0), switched])
def test_settings_after_a_checkpoint_are_those_that_were_given(policy: Steering, tmp_path: Path) -> None:
    through, first, again = (build(2, policy=each) for each in (switched, Setting(2, 0.3), policy))
    for _ in range(5):
        turn(first)
    handed_over(first, again, tmp_path)
    assert all(training.setting == Setting(0, 1.0) for training, _ in again)
    for _ in range(9):
        turn(through)
    for _ in range(4):
        turn(again)
    for one, other in zip(through, again, strict=True):
        assert one[0].in_flight == other[0].in_flight == [8]
        assert torch.equal(one[1], other[1])


def test_checkpoints_of_different_iterations_do_not_mix(tmp_path: Path) -> None:
    workers = build(2, policy=Setting(1, 0.1))
    turn(workers)
    save_checkpoint(workers[0][0], tmp_path / "0")
    turn(workers)
    save_checkpoint(workers[1][0], tmp_path / "1")
    again = build(2, policy=Setting(1, 0.1))
    load_checkpoint(again[0][0], tmp_path / "0")
    with pytest.raises(Disagreement, match="checkpoints"):
        load_checkpoint(again[1][0], tmp_path / "1")
    with pytest.raises(Disagreement, match="an earlier fault"):
        again[1][0].begin()


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    workers = build(1, policy=Setting(1, 0.1))
    save_checkpoint(workers[0][0], tmp_path / "0")
    (fixed,) = world(1, [(constant(1.0), 0.0)])
    small = DeCoSGD([torch.nn.Parameter(torch.zeros(3))], sgd, transport=fixed, policy=Setting(1, 0.1))
    with pytest.raises(ValueError, match=r"shapes is \[\[40\]\] in the checkpoint and \[\[3\]\] here"):
        load_checkpoint(small, tmp_path / "0")
    with pytest.raises(ValueError, match="another kind of policy"):
        load_checkpoint(build(1, policy=DeCo())[0][0], tmp_path / "0")


def test_weights_that_were_touched_are_noticed() -> None:
    workers = build(3, policy=Setting(2, 0.3), parity_every=5)
    for _ in range(4):
        turn(workers)
    with torch.no_grad():
        workers[2][1][7] += 1e-12
    turn(workers)
    turn(workers)
    with pytest.raises(Disagreement, match=r"ranks \[2\] differ from those of rank 0 at iteration 5"):
        for _ in range(4):
            turn(workers)


def test_ranks_with_other_arguments_do_not_start() -> None:
    first, second = world(2, [(constant(1.0), 0.0)])
    DeCoSGD([torch.nn.Parameter(torch.zeros(3))], sgd, transport=first, policy=Setting(1, 0.1))
    with pytest.raises(Disagreement, match="the policy"):
        DeCoSGD([torch.nn.Parameter(torch.zeros(3))], sgd, transport=second, policy=Setting(1, 0.2))


def test_bad_gradients_send_nothing() -> None:
    ((training, x),) = build(1, policy=Setting(1, 0.1))
    training.begin()
    x.grad = torch.full((D,), float("nan"), dtype=torch.float64)
    with pytest.raises(ValueError, match="40 of 40 entries are NaN"):
        training.end()
    assert training.in_flight == [] and training.error.abs().sum() == 0
    x.grad = torch.ones(D, dtype=torch.float64)
    training.end()
    assert training.in_flight == [0]


def test_calls_out_of_turn() -> None:
    ((training, _),) = build(1, policy=Setting(1, 0.1))
    with pytest.raises(RuntimeError, match=r"call begin\(\) first"):
        training.end()
    training.begin()
    for call in (training.begin, training.drain, training.state_dict):
        with pytest.raises(RuntimeError, match=r"call end\(\) first"):
            call()


def test_parameters_that_do_not_fit() -> None:
    (alone,) = world(1, [(constant(1.0), 0.0)])
    one, half = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))
    for parameters, told in (([], "no parameters"), ([one, half], "float16"), ([one, one], "twice")):
        with pytest.raises(ValueError, match=told):
            DeCoSGD(parameters, sgd, transport=alone)
    with pytest.raises(ValueError, match="need no gradient"):
        DeCoSGD([torch.zeros(2)], sgd, transport=alone)
    with pytest.raises(TypeError, match="a Setting, a Policy"):
        DeCoSGD([one], sgd, transport=alone, policy="fast")  # pyright: ignore[reportArgumentType]


def test_a_network_with_several_parameters_learns_by_autograd() -> None:
    """Against delayed SGD on the mean loss, whose gradients autograd adds itself."""
    torch.manual_seed(0)
    data = torch.randn(2, 16, 5, dtype=torch.float64)
    models = [torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double() for _ in "ab"]
    models[1].load_state_dict(models[0].state_dict())
    reference = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    reference.load_state_dict(models[0].state_dict())
    workers = [
        DeCoSGD(model.parameters(), sgd, transport=transport, policy=Setting(1, 1.0), entries=EXACT)
        for model, transport in zip(models, world(2, [(constant(1e9), 0.0)]), strict=True)
    ]
    waiting: list[list[torch.Tensor]] = []
    for _ in range(12):
        if len(waiting) > 1:
            for each, g in zip(reference.parameters(), waiting.pop(0), strict=True):
                each.data -= 0.05 * g
        loss = (reference(data[0]).square().mean() + reference(data[1]).square().mean()) / 2
        waiting.append(list(torch.autograd.grad(loss, list(reference.parameters()))))
        for model, training, batch in zip(models, workers, data, strict=True):
            training.begin()
            model(batch).square().mean().backward()
            training.end()
    for model in models:
        for one, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
