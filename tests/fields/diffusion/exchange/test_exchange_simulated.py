"""The simulation against attention by hand, the formula for bytes, and isolated runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from walk import LAYERS, B, D, H, N, digest, tensors, walk

from acclimate.compression.message import message_codec
from acclimate.fields.diffusion.exchange.attention import attention
from acclimate.fields.diffusion.exchange.shards import cut, joined
from acclimate.fields.diffusion.exchange.simulated import Simulated
from acclimate.fields.diffusion.exchange.strategies import STRATEGIES
from acclimate.fields.diffusion.exchange.ulysses import Ulysses
from acclimate.fields.diffusion.residual.channel import ResidualChannel
from acclimate.fields.diffusion.residual.settings import ResidualSettings

STEPS = 5


def exact(steps: int, branch: int = 0) -> list[Tensor]:
    return [attention(*tensors(step, layer, branch)) for step in range(steps) for layer in range(LAYERS)]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("strategy", ["gather", "ring", "ulysses"])
def test_whole_packets_are_attention_of_one_device(strategy: str, size: int) -> None:
    found = walk(Simulated(size, strategy, ResidualSettings(codec="whole")), STEPS)
    for one, other in zip(found, exact(STEPS), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("own_block", ["exact", "reconstructed"])
@pytest.mark.parametrize(("feedback", "order"), [(True, 0), (True, 1), (False, 1)])
def test_each_device_sees_what_it_would_have(own_block: Any, feedback: bool, order: Any) -> None:
    """Against channels driven by hand, with one receiving end for each source."""
    size, layer = 3, 0
    chosen: dict[str, Any] = {"feedback": feedback, "order": order}
    exchange = Simulated(size, "gather", ResidualSettings(own_block=own_block, **chosen))
    ends = {(s, kind): [ResidualChannel(**chosen) for _ in range(2)] for s in range(size) for kind in "kv"}
    for step in range(STEPS):
        given = tensors(step, layer)
        query, key, value = (cut(each, size) for each in given)
        known = [
            [ends[s, kind][1].decode(ends[s, kind][0].encode(each[s]), like=each[s]) for s in range(size)]
            for kind, each in (("k", key), ("v", value))
        ]
        expected = []
        for rank in range(size):
            own = own_block == "exact"
            k, v = (
                torch.cat([true[s] if own and s == rank else other[s] for s in range(size)], 1)
                for true, other in zip((key, value), known, strict=True)
            )
            expected.append(attention(query[rank], k, v))
        with exchange.evaluation():
            found = exchange.attend(*given, layer=layer)
        torch.testing.assert_close(found, joined(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("codec", ["one_bit", "two_bit", "low_rank:4"])
@pytest.mark.parametrize("size", [2, 4])
def test_a_ring_is_a_gather(size: int, codec: str) -> None:
    try:
        settings = ResidualSettings(codec=codec)
    except ValueError:
        pytest.skip(f"{codec} is no codec of messages")
    ring, gather = (walk(Simulated(size, name, settings), STEPS) for name in ("ring", "gather"))
    for one, other in zip(ring, gather, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_stale_is_the_step_before(size: int) -> None:
    warmup = 2
    found = walk(Simulated(size, "stale", ResidualSettings(warmup=warmup)), STEPS)
    for step in range(STEPS):
        for layer in range(LAYERS):
            query, key, value = (cut(each, size) for each in tensors(step, layer))
            _, old_key, old_value = (cut(each, size) for each in tensors(max(0, step - 1), layer))
            expected = []
            for rank in range(size):
                late = step >= warmup
                k = [old_key[s] if late and s != rank else key[s] for s in range(size)]
                v = [old_value[s] if late and s != rank else value[s] for s in range(size)]
                expected.append(attention(query[rank], torch.cat(k, 1), torch.cat(v, 1)))
            torch.testing.assert_close(found[LAYERS * step + layer], joined(expected), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="warmup=0"):
        walk(Simulated(size, "stale", ResidualSettings(warmup=0)), 1)


@pytest.mark.parametrize("strategy", ["gather", "ring"])
@pytest.mark.parametrize(("codec", "warmup"), [("whole", 1), ("one_bit", 1), ("two_bit", 2), ("two_bit", 0)])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_bytes_are_those_of_the_formula(size: int, codec: str, warmup: int, strategy: str) -> None:
    """T11: `V = 2 L (W - 1) [w F + (S - w) P]` received by each device; headers apart."""
    exchange = Simulated(size, strategy, ResidualSettings(codec=codec, warmup=warmup))
    walk(exchange, STEPS, dtype=torch.float16)
    rows, columns = B * N // size, H * D
    full, packet = 2 * rows * columns, message_codec(codec).size((rows, columns), torch.float16)
    stats = exchange.stats()
    assert stats.sent == pytest.approx(
        2 * LAYERS * (size - 1) * (warmup * full + (STEPS - warmup) * packet), rel=1e-12, abs=1e-9
    )
    assert stats.whole == pytest.approx(2 * LAYERS * (size - 1) * STEPS * full, rel=1e-12)
    assert stats.overhead == pytest.approx(LAYERS * (size - 1) * STEPS * (2 * 16 + 192), rel=1e-12)
    assert stats.evaluations == STEPS


@pytest.mark.parametrize("size", [2, 3])
def test_bytes_of_the_uncompressed_strategies(size: int) -> None:
    full = 4 * B * N // size * H * D
    for strategy, shards in (("stale", 2 * (size - 1)), ("ulysses", 4 * (size - 1) / size)):
        exchange = Simulated(size, strategy)
        walk(exchange, STEPS)
        assert exchange.stats().sent == pytest.approx(LAYERS * STEPS * shards * full, rel=1e-12), strategy
        assert exchange.stats().ratio == 1


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_an_image_after_another_is_an_isolated_one(strategy: str) -> None:
    exchange = Simulated(2, strategy)
    walk(exchange, STEPS, image=0)
    exchange.reset()
    assert exchange.stats().sent == 0
    second = walk(exchange, STEPS, image=1)
    alone = Simulated(2, strategy)
    assert digest(second) == digest(walk(alone, STEPS, image=1))
    assert exchange.stats() == alone.stats()


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_branches_do_not_mix(strategy: str) -> None:
    """T10: each branch of two forwards is as if it ran alone."""
    both = walk(Simulated(2, strategy), STEPS, branches=(0, 1))
    for branch in (0, 1):
        alone = walk(Simulated(2, strategy), STEPS, branches=(branch,))
        own = [each for turn in range(STEPS) for each in both[LAYERS * (2 * turn + branch) :][:LAYERS]]
        assert digest(own) == digest(alone)


def test_errors_are_those_of_the_tensors() -> None:
    exchange = Simulated(2, "gather", ResidualSettings(codec="one_bit"))
    walk(exchange, STEPS)
    stats = exchange.stats()
    assert len(stats.errors) == LAYERS * 2 * 2
    for key, errors in stats.errors.items():
        channel = ResidualChannel("one_bit")
        for step in range(STEPS):
            true = cut(tensors(step, key.layer)["qkv".index(key.kind)], 2)[key.source].double()
            before = channel.held
            channel.encode(true.float())
            assert channel.held is not None
            expected = float((true - channel.held.double()).norm() / true.norm())
            assert errors[step] == pytest.approx(expected, abs=1e-6)
            change = 1.0 if before is None else float((true - before.double()).norm() / true.norm())
            assert stats.changes[key][step] == pytest.approx(change, abs=1e-6)
    mean = [sum(each[step] for each in stats.errors.values()) / len(stats.errors) for step in range(STEPS)]
    assert stats.error_by_step() == pytest.approx(mean)


def test_feedback_is_closer_than_none_and_two_bits_than_one() -> None:
    last: dict[str, float] = {}
    for name, given in {
        "none": {"codec": "one_bit", "feedback": False},
        "one": {"codec": "one_bit"},
        "two": {"codec": "two_bit"},
    }.items():
        exchange = Simulated(2, "gather", ResidualSettings(**given))  # pyright: ignore[reportArgumentType]
        walk(exchange, 20)
        last[name] = exchange.stats().error_by_step()[-1]
    assert last["two"] < last["one"] < last["none"]


def test_a_policy_chooses_by_layer_and_kind() -> None:
    def policy(layer: int, step: int, kind: str) -> str:
        return "whole" if layer == 0 else "one_bit" if kind == "k" else "two_bit"

    exchange = Simulated(2, "gather", ResidualSettings(policy=policy))
    walk(exchange, STEPS)
    for key, errors in exchange.stats().errors.items():
        assert (key.layer == 0) == (max(errors) == 0)


def test_compressed_slices_of_ulysses() -> None:
    whole, lossy, kv = (Simulated(2, Ulysses(each)) for each in ("", "qkvo", "kv"))
    outputs = [walk(each, STEPS) for each in (whole, lossy, kv)]
    torch.testing.assert_close(outputs[0], exact(STEPS), rtol=0, atol=1e-5)
    far, near = (
        max(float((one - other).norm() / other.norm()) for one, other in zip(each, outputs[0], strict=True))
        for each in outputs[1:]
    )
    assert 0 < near < far < 0.5
    assert lossy.stats().sent < kv.stats().sent < whole.stats().sent == whole.stats().whole
    with pytest.raises(ValueError, match="qkvo"):
        Ulysses("qx")
    with pytest.raises(ValueError, match="12 heads for 8 devices"):
        walk(Simulated(8, "ulysses"), 1)


def test_stretches_are_cut_apart() -> None:
    """Joint attention: device r has the r-th part of the text and of the image."""
    exchange = Simulated(2, "gather", segments=(4, N - 4))
    walk(exchange, 3)
    order = [*range(2), *range(4, 4 + (N - 4) // 2), *range(2, 4), *range(4 + (N - 4) // 2, N)]
    plain = Simulated(2, "gather")
    for step in range(3):
        given = [each[:, order] for each in tensors(step, 0)]
        with plain.evaluation():
            expected = plain.attend(*given, layer=0)
    exchange.reset()
    for step in range(3):
        with exchange.evaluation():
            found = exchange.attend(*tensors(step, 0), layer=0)
    assert torch.equal(found[:, order], expected)  # pyright: ignore[reportPossiblyUnboundVariable]


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_layers_out_of_turn(strategy: str) -> None:
    exchange = Simulated(2, strategy)
    given = tensors(0, 0)
    with pytest.raises(ValueError, match=r"with exchange.evaluation\(\)"):
        exchange.attend(*given, layer=0)
    with exchange.evaluation():
        exchange.attend(*given, layer=0)
        exchange.attend(*given, layer=1)
    with pytest.raises(ValueError, match="twice"), exchange.evaluation():
        exchange.attend(*given, layer=0)
        exchange.attend(*given, layer=0)
    with pytest.raises(ValueError, match=r"Call reset\(\) first"), exchange.evaluation():
        pass
    exchange.reset()
    with exchange.evaluation():
        exchange.attend(*given, layer=0)
    with pytest.raises(ValueError, match="layer 1 was not visited"), exchange.evaluation():
        exchange.attend(*given, layer=0)
        exchange.attend(*given, layer=1)
    exchange.reset()
    walk(exchange, 1)
    with pytest.raises(ValueError, match=r"left out layers \[1\]"), exchange.evaluation():
        exchange.attend(*given, layer=0)
    exchange.reset()
    with pytest.raises(ValueError, match="under way"), exchange.evaluation(), exchange.evaluation():
        pass


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_another_shape_in_the_middle_of_an_image(strategy: str) -> None:
    exchange = Simulated(2, strategy)
    walk(exchange, 2)
    shorter = [each[:, :12] for each in tensors(2, 0)]
    with pytest.raises(ValueError, match=r"reset\(\) first"), exchange.evaluation():
        exchange.attend(*shorter, layer=0)
    exchange.reset()
    with exchange.evaluation():
        assert exchange.attend(*shorter, layer=0).shape == (B, 12, H, D)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="strategy must be one of 'gather'"):
        Simulated(2, "pipefusion")
    with pytest.raises(ValueError, match="size"):
        Simulated(0)
