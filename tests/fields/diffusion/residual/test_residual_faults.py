"""What would spoil a base, at the owner's or at a receiver's, is noticed, and the base stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.fields.diffusion.exchange.simulated import Simulated
from acclimate.fields.diffusion.residual.channel import ResidualChannel
from acclimate.fields.diffusion.residual.packet import HEADER, fault_packet
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.fields.diffusion.residual.weighed import (
    _by_numpy,  # pyright: ignore[reportPrivateUsage]
    _by_torch,  # pyright: ignore[reportPrivateUsage]
)
from acclimate.wire.faults import Disagreement, GarbledPacket, LinkFault

CODECS = ("one_bit", "two_bit", "low_rank:2", "low_rank_int4:2", "of_every:4", "top_entries:0.5")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def drawn(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((4, 8))).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codec", CODECS)
def test_no_base_becomes_anything_but_finite(codec: str, dtype: torch.dtype) -> None:
    """Two finite tensors further apart than their type goes."""
    owner, receiver = ResidualChannel(codec), ResidualChannel(codec)
    first, second = drawn(0, dtype), drawn(1, dtype)
    first[0, 0], second[0, 0] = 0.7 * torch.finfo(dtype).max, -0.7 * torch.finfo(dtype).max
    receiver.decode(owner.encode(first), like=first)
    before = owner.checksum()
    with pytest.raises(ValueError, match=r"base would not be finite after step 1.*wider type"):
        owner.encode(second)
    assert owner.checksum() == before and owner.step == 1
    assert torch.equal(receiver.decode(owner.encode(first)), owner.held)  # pyright: ignore[reportArgumentType]
    assert bool(receiver.held.isfinite().all())  # pyright: ignore[reportOptionalMemberAccess]


def test_an_exchange_ends_where_a_base_would_not_be_finite() -> None:
    exchange = Simulated(2, "gather", ResidualSettings(codec="two_bit"))
    first = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 8, 2, 8))).half()
    first[0, 0, 0, 0] = 5e4
    second = first.clone()
    second[0, 0, 0, 0] = -3e4
    with exchange.evaluation():
        exchange.attend(first, first, first, layer=0)
    with pytest.raises(ValueError, match="layer 0, k of rank 0"), exchange.evaluation():
        exchange.attend(first, second, first, layer=0)


def test_a_prediction_stays_within_the_range_of_its_type() -> None:
    """Order 2: 50,000 after -50,000 sent whole is a change that float16 does not hold, and a prediction it may not."""
    owner, receiver = (ResidualChannel("two_bit", order=2, warmup=3) for _ in range(2))
    for value in (-5e4, 5e4, 5e4, 5e4):
        tensor = torch.full((4, 8), value, dtype=torch.float16)
        known = receiver.decode(owner.encode(tensor), like=tensor)
        assert torch.equal(known, owner.held)  # pyright: ignore[reportArgumentType]
    assert torch.allclose(known, tensor, rtol=0.6)
    owner, receiver = (ResidualChannel("two_bit", order=2, warmup=2) for _ in range(2))
    for value in (-5e4, 5e4, 5e4):
        tensor = torch.full((4, 8), value, dtype=torch.float16)
        receiver.decode(owner.encode(tensor), like=tensor)
        assert bool(receiver.held.isfinite().all())  # pyright: ignore[reportOptionalMemberAccess]


def test_without_feedback_a_receiver_looks_for_itself() -> None:
    """What the owner does not know: what receivers have added up."""
    owner, receiver = (ResidualChannel("two_bit", feedback=False) for _ in range(2))
    steps = [torch.full((4, 8), value, dtype=torch.float16) for value in (0.0, 6e4, 3e4, 6e4, 3e4, 6e4)]
    for tensor in steps:
        tensor[:, 0] *= 0.9
        tensor[0] *= 0.95
    before = receiver.checksum()
    with pytest.raises(ValueError, match="base would not be finite"):
        for tensor in steps:
            before = receiver.checksum()
            receiver.decode(owner.encode(tensor), like=tensor)
    assert receiver.checksum() == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"order": 1}, {"order": 2}),
        ({"order": 0}, {"order": 1}),
        ({"order": 2}, {"order": 2, "drift_decay": 0.9}),
        ({"warmup": 1}, {"warmup": 2}),
        ({"refresh_every": 3}, {}),
        ({"feedback": False}, {}),
    ],
)
def test_ends_with_other_rules_part_at_the_first_packet(one: dict[str, Any], other: dict[str, Any]) -> None:
    tensor = drawn(0)
    packet = ResidualChannel("two_bit", **one).encode(tensor)
    with pytest.raises(Disagreement, match="another rule"):
        ResidualChannel("two_bit", **other).decode(packet, like=tensor)


def test_a_decay_that_is_not_used_may_differ() -> None:
    tensor = drawn(0)
    packet = ResidualChannel(drift_decay=0.1).encode(tensor)
    assert torch.equal(ResidualChannel(drift_decay=0.2).decode(packet, like=tensor), tensor)


@pytest.mark.parametrize("step", [0, 1])
def test_every_damaged_byte_is_found(step: int) -> None:
    owner, receiver = ResidualChannel("two_bit"), ResidualChannel("two_bit")
    packet = owner.encode(drawn(0))
    if step:
        receiver.decode(packet, like=drawn(0))
        packet = owner.encode(drawn(1))
    before = receiver.checksum()
    for place in range(len(packet)):
        for change in (1, 128, 255):
            damaged = packet.clone()
            damaged[place] ^= change
            with pytest.raises(GarbledPacket):
                receiver.decode(damaged, like=drawn(0))
    assert receiver.checksum() == before
    assert torch.equal(receiver.decode(packet, like=drawn(0)), owner.held)  # pyright: ignore[reportArgumentType]


def test_words_that_change_places_are_found() -> None:
    owner = ResidualChannel("two_bit")
    packet = owner.encode(drawn(0))
    swapped = torch.cat((packet[:HEADER], packet[HEADER + 4 : HEADER + 8], packet[HEADER : HEADER + 4], packet[24:]))
    assert len(swapped) == len(packet) and not torch.equal(swapped, packet)
    with pytest.raises(GarbledPacket, match="damaged"):
        ResidualChannel("two_bit").decode(swapped, like=drawn(0))


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=16, max_size=200))
def test_the_sum_of_a_packet_is_the_formula_by_either_way(raw: bytes) -> None:
    words = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]
    expected = sum((2 * place + 1) * word for place, word in enumerate(words) if place != 3) % 2**32
    packet = torch.frombuffer(bytearray(b"-" + raw), dtype=torch.uint8)[1:]
    for way in (_by_numpy, _by_torch):
        given_packet = packet if way is _by_numpy else packet.clone()
        assert int.from_bytes(bytes(way(given_packet).tolist()), "little") == expected


def test_a_fault_packet_is_one_at_any_length() -> None:
    for length in (16, 17, 40, 1003):
        with pytest.raises(LinkFault, match="cannot go on"):
            ResidualChannel().decode(fault_packet(length), like=drawn(0))


@pytest.mark.parametrize("wrong", [b"123", [1, 2], np.zeros(40, np.uint8), None])
def test_a_packet_that_is_no_tensor_is_refused(wrong: Any) -> None:
    receiver = ResidualChannel()
    with pytest.raises(ValueError, match="expected a packet as a tensor uint8"):
        receiver.decode(wrong, like=drawn(0))
    with pytest.raises(ValueError, match="expected float32, float16 or bfloat16, as a tensor"):
        receiver.encode(wrong)


@pytest.mark.parametrize(
    ("codec", "shape"),
    [("two_bit", (4, 6)), ("one_bit", (4, 12)), ("low_rank_int4:2", (5, 8)), ("of_every:8", (4, 12))],
)
def test_a_shape_that_the_codec_does_not_take_shows_before_the_warm_up(codec: str, shape: tuple[int, int]) -> None:
    chosen: dict[str, Any] = {"codec": codec, "warmup": 4}
    with pytest.raises(ValueError, match=r"channel, step 4: "):
        ResidualChannel(**chosen).encode(torch.zeros(shape))
    packet = ResidualChannel("whole", warmup=4).encode(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"channel, step 4: "):
        ResidualChannel(**chosen).decode(packet, like=torch.zeros(shape))
    every = ResidualChannel(**chosen, refresh_every=1)  # sends everything in every step
    for _ in range(6):
        assert len(every.encode(torch.zeros(shape))) == HEADER + 4 * shape[0] * shape[1]


def test_a_policy_is_asked_before_the_warm_up_as_well() -> None:
    def policy(layer: int, step: int, kind: str) -> str:
        return "of_every:16" if kind == "v" else "whole"

    exchange, x = Simulated(2, "gather", ResidualSettings(policy=policy, warmup=3)), torch.zeros(1, 4, 1, 8)
    with pytest.raises(ValueError, match=r"layer 0, v of rank 0, branch 0, step 3: of_every"), exchange.evaluation():
        exchange.attend(x, x, x, layer=0)
