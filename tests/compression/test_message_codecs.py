"""Messages: bytes that follow from shape and type, and survive the journey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.compression import (
    LowRank,
    LowRankInt4,
    MessageCodec,
    OfEvery,
    OneBit,
    TopEntries,
    TwoBit,
    Whole,
    codecs,
    encode_change,
    from_bytes,
    message_codec,
    to_bytes,
)

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
CODECS: list[MessageCodec] = [
    Whole(),
    OneBit(),
    OneBit(scales="float32"),
    TwoBit(),
    TwoBit.preset("normal"),
    TwoBit(scales="bfloat16"),
    LowRank(rank=2, values="float16", iterations=3),
    LowRank(rank=2),
    LowRankInt4(rank=2),
    OfEvery(of=4),
    OfEvery(of=2, values="float32"),
    TopEntries(keep=0.3),
    TopEntries(keep=1.0, values="float32"),
]


def named(codec: MessageCodec) -> str:
    return "-".join(str(value) for value in codec.config().values())


def raw_bytes(part: Tensor) -> bytes:
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
    return part.contiguous().view(words[part.element_size()]).numpy().tobytes(order="C")


def example(rows: int, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns))).to(dtype)


@pytest.mark.parametrize(
    ("name", "size", "ratio"),
    [
        ("whole", 6_684_672, 1),
        ("two_bit", 843_904, 7.92),
        ("one_bit", 426_112, 15.69),
        ("low_rank:8", 66_560, 100.43),
        ("low_rank_int4:32", 66_816, 100.05),
        ("of_every:8", 1_044_480, 6.40),
        ("top_entries:0.05", 6 * math.floor(0.05 * 1088 * 3072), 6.67),
    ],
)
def test_published_bytes_of_one_tensor_of_flux(name: str, size: int, ratio: float) -> None:
    """1024 x 1024, four devices: 1024 image and 64 text tokens of 24 heads of 128 channels."""
    assert message_codec(name).size((1088, 3072), torch.float16) == size
    assert round(1088 * 3072 * 2 / size, 2) == ratio


@pytest.mark.parametrize("codec", CODECS, ids=named)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_parts_have_the_form_and_the_bytes_come_back(codec: MessageCodec, dtype: torch.dtype) -> None:
    for rows, columns in ((2, 8), (6, 16), (10, 40), (0, 8), (4, 0)):
        x = example(rows, columns, dtype)
        kept = x.clone()
        packed = codec.encode(x)
        assert torch.equal(x, kept)
        assert tuple((tuple(part.shape), part.dtype) for part in packed.parts) == codec.form(x.shape, dtype)
        raw = to_bytes(packed)
        assert raw.dtype == torch.uint8 and len(raw) == codec.size(x.shape, dtype)
        assert bytes(raw.numpy()) == b"".join(raw_bytes(part) for part in packed.parts)
        decoded = packed.decode()
        assert decoded.shape == x.shape and decoded.dtype == dtype and decoded.is_contiguous()
        for offset in (0, 1, 2, 16):  # wherever the content begins in a packet, aligned or not
            packet = torch.zeros(offset + len(raw), dtype=torch.uint8)
            place = packet[offset:]
            assert to_bytes(packed, place) is place
            received = from_bytes(codec, place, torch.empty(rows, columns, dtype=dtype, device="meta"))
            assert torch.equal(received.decode(), decoded)
            assert offset % 4 or not received.parts[0].numel() or received.parts[0].data_ptr() == place.data_ptr()


@pytest.mark.parametrize("codec", CODECS, ids=named)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_change_on_a_base(codec: MessageCodec, dtype: torch.dtype) -> None:
    """Owner and receiver arrive at the same bits, those of `base + decode`; several chunks of rows."""
    x, base = example(300, 1000, dtype), example(300, 1000, dtype, seed=1)
    kept = x.clone(), base.clone()
    raw, new = encode_change(codec, x, base)
    assert torch.equal(raw, to_bytes(codec.encode(x - base)))
    packed = from_bytes(codec, raw, base)
    assert torch.equal(new, base + packed.decode())
    assert torch.equal(codec.added(packed, base), new)
    assert torch.equal(x, kept[0]) and torch.equal(base, kept[1])
    assert codec.added(packed, base, out=base) is base and torch.equal(base, new)
    across = torch.empty(1000, 300, dtype=dtype).T
    assert codec.added(packed, kept[1], out=across) is across and torch.equal(across, new)


def test_a_base_of_another_shape_or_type_is_refused() -> None:
    x = example(4, 8)
    for codec in (OneBit(), LowRank(rank=1)):
        for base in (example(1, 8), example(4, 8, torch.float16)):
            with pytest.raises(ValueError, match="expected a base"):
                codec.encode_change(x, base)
            with pytest.raises(ValueError, match="expected a base"):
                codec.added(codec.encode(x), base)


@pytest.mark.parametrize("codec", CODECS, ids=named)
def test_transposed_and_cut_matrices(codec: MessageCodec) -> None:
    x = example(8, 16)
    for y in (example(16, 8).T, example(16, 32)[::2, ::2], x):
        plain = codec.encode(y.contiguous())
        assert torch.equal(to_bytes(codec.encode(y)), to_bytes(plain)) or isinstance(codec, (LowRank, LowRankInt4))
        decoded = codec.encode(y).decode()
        torch.testing.assert_close(decoded, plain.decode(), rtol=1e-3, atol=1e-3)
        assert y.numel() * 4 < y.untyped_storage().nbytes() or decoded.stride() == y.stride()


def test_names_numbers_and_presets() -> None:
    assert message_codec("low_rank") == LowRank(values="float16", iterations=3)
    assert message_codec("low_rank:8") == LowRank(rank=8, values="float16", iterations=3)
    assert message_codec("of_every:16") == OfEvery(of=16)
    assert message_codec("top_entries:0.1") == TopEntries(keep=0.1)
    assert message_codec("two_bit:normal") == TwoBit(threshold=1.230, levels_at=(0.567, 1.893))
    for codec in CODECS:
        assert message_codec(codec) is codec
        assert message_codec(codec.config()) == codec == codecs.build(codec.config())
    for wrong, told in {
        "half": "promises no fixed bytes.*two_bit",
        "two_bits": "two_bit",
        "whole:3": "no setting that a number",
        "two_bit:best": "normal",
        "of_every:3": "one of 2, 4, 8, 16",
    }.items():
        with pytest.raises(ValueError, match=told):
            message_codec(wrong)


def test_shapes_that_have_no_message_are_refused() -> None:
    for codec in (Whole(), OneBit(), TwoBit(), LowRankInt4(), OfEvery(), TopEntries()):
        for shape in ((8,), (2, 4, 8), ()):
            with pytest.raises(ValueError, match="matrix"):
                codec.encode(torch.zeros(shape))
    for codec, shape, told in (
        (OneBit(), (2, 12), "12 channels.*divide by 8"),
        (TwoBit(), (2, 6), "6 channels.*divide by 4"),
        (LowRankInt4(), (3, 8), "even"),
        (LowRankInt4(), (4, 7), "even"),
        (OfEvery(of=8), (2, 12), "divide by 8"),
        (OfEvery(of=8), (3, 8), "even in number"),
        (TopEntries(), (1 << 16, 1 << 15), "int32"),
    ):
        with pytest.raises(ValueError, match=told):
            codec.form(shape, torch.float32)


def test_bytes_of_another_length_are_refused() -> None:
    x = example(4, 8)
    raw = to_bytes(TwoBit().encode(x))
    with pytest.raises(ValueError, match=r"message of 28 bytes.*found 32"):
        from_bytes(OneBit(), raw, x)
    with pytest.raises(ValueError, match=r"message of 32 bytes.*found 28"):
        to_bytes(TwoBit().encode(x), torch.zeros(28, dtype=torch.uint8))
    with pytest.raises(ValueError, match="uint8"):
        from_bytes(TwoBit(), raw.view(torch.int8), x)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"scales": "float8"}, "scales must be one of"),
        ({"threshold": 0.0}, "threshold"),
        ({"levels_at": (2.0, 0.5)}, "levels_at"),
        ({"levels_at": (0.5,)}, "levels_at"),
        ({"levels_at": (0.5, math.nan)}, "levels_at"),
    ],
)
def test_settings_out_of_range(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TwoBit(**arguments)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("codec", CODECS, ids=named)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_zeros_decode_to_zeros(codec: MessageCodec, dtype: torch.dtype) -> None:
    for zero in (0.0, -0.0):
        assert torch.equal(codec.encode(torch.full((6, 16), zero, dtype=dtype)).decode(), torch.zeros(6, 16).to(dtype))


@pytest.mark.parametrize("codec", CODECS, ids=named)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_loud(codec: MessageCodec, dtype: torch.dtype, bad: float) -> None:
    x = example(6, 16, dtype)
    x[3, 5] = bad
    decoded = codec.encode(x).decode()
    assert not decoded[3, 5].isfinite()
    if isinstance(codec, (OneBit, TwoBit, LowRank, LowRankInt4)):
        assert decoded.isnan().all()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 9),
    columns=st.integers(0, 5),
    codec=st.sampled_from(CODECS),
    dtype=st.sampled_from(FLOATS),
    scale=st.sampled_from([0.0, 1e-7, 1e-3, 1.0, 1e4]),
    seed=st.integers(0, 5),
)
def test_finite_stays_finite_at_the_size_promised(
    rows: int, columns: int, codec: MessageCodec, dtype: torch.dtype, scale: float, seed: int
) -> None:
    x = (example(2 * rows, 8 * columns, torch.float64, seed) * scale).to(dtype)
    raw = to_bytes(codec.encode(x))
    assert len(raw) == codec.size(x.shape, dtype)
    decoded = from_bytes(codec, raw, x).decode()
    assert decoded.isfinite().all()
    largest = float(x.double().abs().max()) if x.numel() else 0.0
    # u <= N and c <= max |x|, times a level of 2 at most; factors of a matrix are no longer than the matrix
    assert float(decoded.double().abs().max() if x.numel() else 0) <= 2.1 * max(len(x), 8 * columns) * largest + 1e-6
