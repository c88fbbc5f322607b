"""Every family of transformers: exact with an exact exchange, close with a compressed one, itself again afterwards."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

import torch
from plain_exchange import PlainExchange
from tiny_transformers import FAMILIES, built, trajectory
from torch import Tensor

from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.attach.compacted import Compacted

LAYERS = {"dit": 2, "pixart": 2, "sd3": 4, "flux": 3, "cogvideox": 2, "cogvideox-positions": 2}


def furthest(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_that_loses_nothing_gives_the_same_answers(name: str) -> None:
    model, call = built(name)
    plain = trajectory(call, model, 3)
    exchange = PlainExchange(4)
    with Compacted(model, exchange):
        assert furthest(trajectory(call, model, 3), plain) < 1e-5
    assert exchange.seen == [(0, layer) for layer in range(LAYERS[name])] * 3


@pytest.mark.parametrize("strategy", ["gather", "ring", "ulysses"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_whole_exchange_between_two_devices_gives_the_same_answers(name: str, strategy: str) -> None:
    model, call = built(name)
    plain = trajectory(call, model, 3)
    with compact(model, devices=2, strategy=strategy, codec="whole") as compacted, compacted.image():
        assert furthest(trajectory(call, model, 3), plain) < 1e-5
        stats = compacted.stats()
    assert stats.evaluations == 3
    assert stats.sent == stats.whole > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_compression_is_exact_in_the_warm_up_and_close_after_it(name: str) -> None:
    model, call = built(name)
    plain = trajectory(call, model, 5)
    spread = float(torch.stack(plain).std())
    with compact(model, devices=4, codec="two_bit", warmup=2) as compacted, compacted.image():
        found = trajectory(call, model, 5)
        stats = compacted.stats()
    assert furthest(found[:2], plain[:2]) < 1e-5
    assert 1e-4 < furthest(found[2:], plain[2:]) < 0.25 * spread
    assert len(stats.errors) == 2 * 4 * LAYERS[name]
    assert stats.sent < 0.7 * stats.whole


@pytest.mark.parametrize("name", FAMILIES)
def test_detaching_brings_back_what_was_there(name: str) -> None:
    model, call = built(name)
    modules = list(model.modules())
    plain = trajectory(call, model, 2)
    before = [dict(vars(module)) for module in modules]
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in modules]
    exchange = PlainExchange()
    compacted = Compacted(model, exchange)
    changed = [vars(module).get("processor") for module in modules]
    trajectory(call, model, 1)
    compacted.detach()
    compacted.detach()
    assert exchange.closed == 1
    assert sum(now is not was.get("processor") for now, was in zip(changed, before, strict=True)) == LAYERS[name]
    for module, was, counted in zip(modules, before, hooks, strict=True):
        assert vars(module).keys() == was.keys()
        assert vars(module).get("processor") is was.get("processor")
        assert (len(module._forward_hooks), len(module._forward_pre_hooks)) == counted
    assert all(torch.equal(one, other) for one, other in zip(trajectory(call, model, 2), plain, strict=True))


def test_a_forward_that_was_wrapped_before_is_wrapped_again_after_detaching() -> None:
    model, call = built("dit")
    inner, calls = model.forward, []

    def counting(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return inner(*args, **kwargs)

    model.forward = counting
    with Compacted(model, PlainExchange()):
        trajectory(call, model, 2)
    assert len(calls) == 2 and model.forward is counting


@pytest.mark.parametrize("name", ["dit", "sd3", "flux"])
def test_two_images_in_a_row_are_as_each_by_itself(name: str) -> None:
    model, call = built(name)
    alone: list[list[Tensor]] = []
    for seed in (0, 1):
        with compact(model, devices=2, codec="one_bit"):
            alone.append(trajectory(call, model, 4, seed=seed))
    with compact(model, devices=2, codec="one_bit") as compacted:
        for seed in (0, 1):
            with compacted.image():
                assert furthest(trajectory(call, model, 4, seed=seed), alone[seed]) == 0
        carried = trajectory(call, model, 4, seed=0)
    assert furthest(carried, alone[0]) > 1e-4  # without reset() the second image begins where the first ended


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_models_stay_in_it(name: str) -> None:
    model, call = built(name)
    half = model.bfloat16()

    def answered(given: object, latent: Tensor, timestep: float) -> Tensor:
        return call(half, latent.bfloat16(), timestep)

    plain = trajectory(answered, half, 3)
    exchange = PlainExchange()
    with Compacted(half, exchange):
        found = trajectory(answered, half, 3)
    assert found[0].dtype == exchange.keys[0].dtype == torch.bfloat16
    assert furthest(found, plain) <= 2.0**-6
    with compact(half, devices=2, codec="two_bit") as compacted:
        assert furthest(trajectory(answered, half, 3), plain) < 0.25 * float(torch.stack(plain).float().std())
        assert compacted.stats().evaluations == 3
