"""Packets byte by byte, as a reader of the layout would see them, and garbage."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.fields.wide_area.policy.conditions import Report
from acclimate.fields.wide_area.wire.packet import Packet, pack, unpack
from acclimate.wire.faults import GarbledPacket

KINDS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def example(**changes: object) -> torch.Tensor:
    given = {"number": 9, "indices": torch.tensor([1, 4, 6]), "values": torch.tensor([0.5, -2.0, 3.0])}
    return pack(Packet(**{**given, **changes}))  # pyright: ignore[reportArgumentType]


def test_the_bytes_are_those_of_the_layout() -> None:
    raw = bytes(example(report=Report(0.25, 1e6, 0.125)).tolist())
    number, kept, flags, compute, bandwidth, latency, check = struct.unpack("<3I3fI", raw[4:32])
    assert (number, kept, flags) == (9, 3, 0)
    assert (compute, bandwidth, latency) == (0.25, 1e6, 0.125)
    assert np.frombuffer(raw[32:44], "<i4").tolist() == [1, 4, 6]
    assert np.frombuffer(raw[44:], "<f4").tolist() == [0.5, -2.0, 3.0]
    assert check == zlib.crc32(raw[:28] + bytes(4) + raw[32:])


@given(
    st.sampled_from(KINDS),
    st.booleans(),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
    st.none() | st.integers(0, 2**64 - 1),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_round_trip_and_size(
    kind: torch.dtype, dense: bool, kept: int, number: int, digest: int | None, probe: bool
) -> None:
    generator = np.random.default_rng(kept)
    count = kept if dense else kept + 31
    indices = None if dense else torch.from_numpy(np.sort(generator.permutation(count)[:kept]))
    values = torch.from_numpy(generator.standard_normal(kept)).to(kind)
    raw = pack(Packet(number, indices, values, digest=digest, wants_probe=probe))
    bits = 8 * kind.itemsize + (0 if dense else 32)
    assert len(raw) == 32 + kept * bits // 8 + (0 if digest is None else 8)
    back = unpack(raw, count)
    assert (back.number, back.digest, back.wants_probe) == (number, digest, probe)
    assert torch.equal(back.values, values) and back.values.dtype == kind
    assert back.indices is None if indices is None else torch.equal(back.indices, indices)
    assert all(math.isnan(each) for each in back.report)


@given(st.integers(0, 55), st.integers(1, 255))
@settings(max_examples=120, deadline=None)
def test_no_damaged_byte_goes_unnoticed(place: int, change: int) -> None:
    raw = example()
    assert len(raw) == 56
    raw[place] ^= change
    with pytest.raises(GarbledPacket):
        unpack(raw, 7)


@pytest.mark.parametrize("length", [0, 5, 31, 32, 55, 57, 500])
def test_cut_and_joined_packets(length: int) -> None:
    raw = torch.cat((example(), torch.zeros(500, dtype=torch.uint8)))[:length]
    with pytest.raises(GarbledPacket, match=r"bytes|uint8"):
        unpack(raw, 7)


def test_what_was_found_is_said() -> None:
    with pytest.raises(GarbledPacket, match="no packet"):
        unpack(torch.zeros(64, dtype=torch.uint8), 7)
    with pytest.raises(GarbledPacket, match="ascend"):
        unpack(example(indices=torch.tensor([4, 1, 6])), 7)
    with pytest.raises(GarbledPacket, match=r"0\.\.5"):
        unpack(example(), 6)
    with pytest.raises(GarbledPacket, match="not finite"):
        unpack(example(values=torch.tensor([1.0, math.inf, 2.0])), 7)
    with pytest.raises(GarbledPacket, match="holds 3 dense entries"):
        unpack(example(indices=None), 7)
    with pytest.raises(GarbledPacket, match="float32"):
        unpack(torch.zeros(64), 7)


@given(st.binary(min_size=0, max_size=200))
@settings(max_examples=100, deadline=None)
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(GarbledPacket):
        unpack(torch.tensor(list(noise), dtype=torch.uint8), 7)


def test_measurements_beyond_float32_are_held_to_its_largest_number() -> None:
    largest = float(np.finfo(np.float32).max)
    back = unpack(example(report=Report(0.25, 1e39, 1e300)), 7).report
    assert back == (0.25, largest, largest)
    back = unpack(example(report=Report(math.nan, math.inf, 0.0)), 7).report
    assert math.isnan(back.compute) and back.bandwidth == math.inf
