from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.replicas.fleet import Fleet
from acclimate.links.traces import constant
from acclimate.wire.simulated import world


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5)).eval()


def replicas(
    count: int, setting: Setting, *, method: str = "tent", every: int = 1, **settings: object
) -> tuple[list[Adapted], list[Fleet]]:
    fleets = [
        Fleet(transport, setting, every=every, parity_every=1) for transport in world(count, [(constant(1e6), 0.1)])
    ]
    net = network()
    return [acclimate.adapt(net, method, guard=None, replicas=fleet, **settings) for fleet in fleets], fleets  # type: ignore[arg-type]


def batches(replica: int, count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(replica)
    return [torch.rand(8, 3, 8, 8, generator=generator) + replica for _ in range(count)]


def weights(model: Adapted) -> Tensor:
    return torch.cat([each.detach().flatten() for each in model.module.parameters()])


def run(models: list[Adapted], rounds: int) -> None:
    streams = [batches(place, rounds) for place in range(len(models))]
    for turn in range(rounds):
        for model, stream in zip(models, streams, strict=True):
            model(stream[turn])


def test_a_full_round_is_the_mean_of_what_replicas_learned_alone() -> None:
    """With plain descent one round of one step is descent on the mean of the gradients."""
    from acclimate.methods.tent import Tent

    method = Tent(learning_rate=0.05, optimizer="sgd")
    models, fleets = replicas(3, Setting(0, 1.0), method=method)  # type: ignore[arg-type]
    alone = [acclimate.adapt(network(), method, guard=None) for _ in range(3)]
    for place, model in enumerate(alone):
        model(batches(place)[0])
    run(models, 1)
    for fleet in fleets:
        fleet.drain()
    mean = torch.stack([weights(each) for each in alone]).mean(0)
    assert not torch.equal(weights(alone[0]), weights(alone[1]))
    for model in models:
        torch.testing.assert_close(weights(model), mean, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("setting", [Setting(0, 1.0), Setting(2, 1.0), Setting(0, 0.2), Setting(1, 0.3)])
@pytest.mark.parametrize("every", [1, 2])
def test_replicas_begin_every_round_equal_and_have_learned(setting: Setting, every: int) -> None:
    models, fleets = replicas(2, setting, every=every)
    before = weights(models[0])
    run(models, 8)
    for fleet in fleets:
        fleet.drain()
    assert torch.equal(weights(models[0]), weights(models[1])) and not torch.equal(weights(models[0]), before)
    assert torch.equal(torch.cat([p.flatten() for p in models[0].unwrap().parameters()]), before)


def test_nothing_that_was_learned_is_lost() -> None:
    """What all sent and have not sent yet is the sum of all movements."""
    models, fleets = replicas(2, Setting(0, 0.1))
    start = weights(models[0])
    moved = torch.zeros(sum(each.numel() for each in fleets[0]._common))
    streams = [batches(place, 5) for place in range(2)]
    for turn in range(5):
        for place, (model, fleet) in enumerate(zip(models, fleets, strict=True)):
            fleet._before()
            common = torch.cat([each.detach().flatten() for each in fleet._common])
            model(streams[place][turn])
            moved += torch.cat([each.flatten() for each in fleet._own]) - common
    for fleet in fleets:
        fleet.drain()
    common = torch.cat([each.detach().flatten() for each in fleets[0]._common])
    origin = torch.cat([p.detach().flatten() for p in _shared(network(), models[0])])
    left = sum(-fleet.training.error for fleet in fleets) / 2
    torch.testing.assert_close(common - origin + left, moved / 2, rtol=1e-4, atol=1e-6)
    assert start.shape == weights(models[0]).shape


def _shared(net: nn.Module, model: Adapted) -> list[Tensor]:
    fresh = acclimate.adapt(net, "tent", guard=None)
    slots = dict(fresh.state.table.entries())
    return [slots[name].tensor for name in sorted(slots) if slots[name].merge == "mean" and slots[name].learned]


def test_a_held_batch_moves_only_with_the_others() -> None:
    models, fleets = replicas(2, Setting(0, 1.0))
    bad = torch.full((8, 3, 8, 8), float("nan"))
    models[0](bad)
    models[1](batches(1)[0])
    for fleet in fleets:
        fleet.drain()
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert models[0].last is not None and models[0].last.held == 8


def test_a_reset_is_exact_and_a_saved_fleet_goes_on_bit_for_bit() -> None:
    models, fleets = replicas(2, Setting(1, 0.3))
    run(models, 3)
    states = [copy.deepcopy(fleet.state_dict()) for fleet in fleets]
    snapshots = [copy.deepcopy(model.state.table.export()) for model in models]
    run(models, 2)
    after = weights(models[0])
    again, others = replicas(2, Setting(1, 0.3))
    for model, exported, fleet, state in zip(again, snapshots, others, states, strict=True):
        model.state.table.adopt(*exported)
        fleet.load_state_dict(state)
    streams = [batches(place, 2) for place in range(2)]
    for turn in range(2):
        for model, stream in zip(again, streams, strict=True):
            model(stream[turn])
    assert torch.equal(weights(again[0]), after)
    for fleet in fleets:
        fleet.reset()
    assert torch.equal(weights(models[0]), torch.cat([p.flatten() for p in network().parameters()]))
    run(models, 1)
    for fleet in fleets:
        fleet.drain()
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_what_cannot_be_shared_is_refused() -> None:
    (transport,) = world(1, [(constant(1e6), 0.1)])
    with pytest.raises(ValueError, match="nothing that replicas could share"):
        acclimate.adapt(network(), "source", guard=None, replicas=Fleet(transport))
    (transport,) = world(1, [(constant(1e6), 0.1)])
    fleet = Fleet(transport)
    with pytest.raises(RuntimeError, match="no model yet"):
        fleet.training  # noqa: B018
    acclimate.adapt(network(), "tent", guard=None, replicas=fleet)
    with pytest.raises(ValueError, match="has a model already"):
        acclimate.adapt(network(), "tent", guard=None, replicas=fleet)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_other_types_are_shared(dtype: torch.dtype) -> None:
    fleets = [Fleet(transport, Setting(0, 0.4)) for transport in world(2, [(constant(1e6), 0.1)])]
    models = [acclimate.adapt(network().to(dtype), "tent", guard=None, replicas=fleet) for fleet in fleets]
    before = weights(models[0])
    for place, model in enumerate(models):
        model(batches(place)[0].to(dtype))
    for fleet in fleets:
        fleet.drain()
    assert torch.equal(weights(models[0]), weights(models[1])) and not torch.equal(weights(models[0]), before)


def test_going_back_alone_is_refused() -> None:
    models, fleets = replicas(2, Setting(0, 1.0))
    tag = models[0].snapshot()
    run(models, 1)
    with pytest.raises(RuntimeError, match=r"reset\(\) of the Fleet"):
        models[0].reset()
    with pytest.raises(RuntimeError, match=r"state_dict\(\) of the Fleet"):
        models[0].restore(tag)
    for fleet in fleets:
        fleet.reset()
    assert torch.equal(weights(models[0]), torch.cat([p.flatten() for p in network().parameters()]))
