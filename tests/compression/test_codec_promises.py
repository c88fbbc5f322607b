"""What every codec promises: shape, type, strides, bytes, no alias, no side effect."""

from __future__ import annotations

import gc
import math
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.compression import (
    Bits,
    Codec,
    Exact,
    Half,
    Layout,
    LowRank,
    Normalized,
    Offsets,
    Packed,
    Quantized,
    Sparse,
    Stub,
    codecs,
)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

NUMERIC: list[Codec] = [
    Bits(),
    Bits(predicate="sign"),
    Bits(predicate="mask"),
    Bits(predicate="mask", scale=2.0),
    Bits(predicate="inside", low=-0.5, high=0.5),
    Bits(predicate="inside", high=0.5, inclusive=True),
    Half(),
    Half(kind="bfloat16"),
    LowRank(rank=2),
    LowRank(rank=3, rows=-1, values="float16"),
    Quantized(),
    Quantized(bits=4),
    Quantized(symmetric=False),
    Quantized(bits=4, symmetric=False, per="channel"),
    Quantized(per="channel"),
    Quantized(per="channel", parameter=2),
    Quantized(per="row"),
    Quantized(bits=4, per="row", parameter=2),
    Quantized(per="block", parameter=5),
    Quantized(bits=4, per="block", parameter=7),
    Quantized(per="group", parameter=1),
    Quantized(stochastic=True),
    Quantized(bits=4, stochastic=True, symmetric=False),
    Normalized(),
    Normalized(bits=4),
    Normalized(per="row"),
    Normalized(per="tensor"),
    Normalized(bits=4, per="group", parameter=1),
]
SPARSE: list[Codec] = [
    Sparse(keep=keep, values=values, selection=selection)
    for keep in (0.0, 0.3, 1.0)
    for values in ("same", "float16", "int8")
    for selection in ("sampled", "exact")
]


def named(codec: Codec) -> str:
    return "-".join(str(value) for value in codec.config().values())


def counted(packed: Packed) -> int:
    """Bytes of the storages, told apart by address."""
    return sum({part.data_ptr(): len(part.untyped_storage()) for part in packed.parts}.values())


def example(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def encode(codec: Codec, x: Tensor) -> Packed:
    return codec.encode(x, generator=torch.Generator().manual_seed(1))


SHAPES = [(), (1,), (0,), (7,), (3, 5), (0, 4), (4, 0, 2), (2, 3, 4), (2, 4, 3, 5), (1, 1, 3, 1), (2, 2, 3, 2, 3)]


@pytest.mark.parametrize("codec", [*NUMERIC, *SPARSE, Stub()], ids=named)
def test_shape_type_strides_and_bytes(codec: Codec) -> None:
    for shape in SHAPES:
        for dtype in FLOATS:
            x = example(shape, dtype)
            kept = x.clone()
            packed = encode(codec, x)
            decoded, again = packed.decode(), packed.decode()
            assert torch.equal(x, kept), "the input is read only"
            assert decoded.shape == x.shape and decoded.dtype == x.dtype and decoded.device == x.device
            assert decoded.stride() == x.stride()
            if not isinstance(codec, Stub):
                torch.testing.assert_close(decoded, again, rtol=0, atol=0, equal_nan=True)
                assert decoded.isfinite().all()
            assert packed.nbytes == counted(packed)
            assert packed.dense_nbytes == x.numel() * x.element_size()
            if isinstance(codec, Sparse):
                assert packed.nbytes <= codec.size(shape, dtype)
            else:
                assert packed.nbytes == codec.size(shape, dtype)
            if not isinstance(codec, Stub):
                parts = {part.data_ptr() for part in packed.parts if part.numel()}
                if x.numel():
                    assert decoded.data_ptr() not in parts | {again.data_ptr(), x.data_ptr()}
                    assert x.data_ptr() not in parts


@pytest.mark.parametrize("codec", [*NUMERIC, *SPARSE], ids=named)
def test_memory_formats(codec: Codec) -> None:
    """Dense strides come back, in whatever order; others come back contiguous; the values are those of a plain copy
    wherever groups do not depend on the order."""
    by_order = codec.config().get("per") == "block" or codec.config().get("stochastic")
    base = example((2, 4, 3, 5))
    dense = {
        "channels last": base.to(memory_format=torch.channels_last),
        "transposed": base.transpose(1, 3),
        "permuted": base.permute(2, 0, 3, 1),
    }
    gaps = {"every second": example((4, 4, 6, 5))[::2, :, ::2], "expanded": example((1, 4, 1, 5)).expand(2, 4, 3, 5)}
    for name, x in {**dense, **gaps}.items():
        decoded = encode(codec, x).decode()
        if name in dense:
            assert decoded.stride() == x.stride(), name
        if not by_order:
            plain = encode(codec, x.contiguous()).decode()
            close = isinstance(codec, (LowRank, Normalized))  # sums in another order
            torch.testing.assert_close(decoded, plain, rtol=1e-4 if close else 0, atol=1e-4 if close else 0)


@pytest.mark.parametrize("codec", [*NUMERIC, *SPARSE, Stub()], ids=named)
def test_the_input_is_not_kept_alive(codec: Codec) -> None:
    x = example((2, 3, 4, 5)).requires_grad_()
    y = x * 2
    dead, storage = weakref.ref(y), weakref.ref(y.untyped_storage())
    packed = encode(codec, y)
    del y
    gc.collect()
    assert dead() is None and storage() is None
    assert not packed.decode().requires_grad


@pytest.mark.parametrize("codec", [*NUMERIC, *SPARSE, Stub(), Exact()], ids=named)
def test_a_codec_is_built_again_from_its_config(codec: Codec) -> None:
    assert codecs.build(codec.config()) == codec


def test_every_codec_is_registered() -> None:
    assert list(codecs.classes()) == sorted(
        [
            *("bits", "exact", "half", "low_rank", "low_rank_int4", "normalized", "of_every", "offsets", "one_bit"),
            *("quantized", "sparse", "stub", "top_entries", "two_bit", "whole"),
        ]
    )


@pytest.mark.parametrize("codec", [codec for codec in NUMERIC if not isinstance(codec, LowRank)], ids=named)
def test_sizes_on_meta(codec: Codec) -> None:
    """A planner may encode what does not exist."""
    generator = torch.Generator("cpu")
    if codec.config().get("stochastic"):
        pytest.skip("draws need a device")
    x = torch.empty(3, 4, 5, 7, device="meta", dtype=torch.bfloat16)
    packed = codec.encode(x, generator=generator)
    assert packed.nbytes == codec.size(x.shape, x.dtype) and packed.decode().device.type == "meta"


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 6), max_size=4),
    codec=st.sampled_from([*NUMERIC, *SPARSE]),
    dtype=st.sampled_from(FLOATS),
    order=st.randoms(use_true_random=False),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 3e4]),
)
def test_any_shape_in_any_order(
    shape: list[int], codec: Codec, dtype: torch.dtype, order: object, scale: float
) -> None:
    axes = list(range(len(shape)))
    order.shuffle(axes)  # type: ignore[attr-defined]
    x = (example(tuple(shape)) * scale).clamp(-6e4, 6e4).to(dtype).permute(axes)
    packed = encode(codec, x)
    decoded = packed.decode()
    assert decoded.shape == x.shape and decoded.dtype == dtype and decoded.isfinite().all()
    assert not x.numel() or decoded.stride() == x.stride()
    assert packed.nbytes == counted(packed) <= codec.size(x.shape, dtype)


@pytest.mark.parametrize("codec", [*NUMERIC, *SPARSE], ids=named)
def test_several_chunks(codec: Codec) -> None:
    """Longer than a chunk of 262,144, and odd: what decodes is what the parts of the tensor would decode to."""
    x = example((3, 2, 301, 331)) * torch.tensor([1.0, 5.0])[:, None, None] + 1
    for y in (x, x.to(memory_format=torch.channels_last)):
        packed = encode(codec, y)
        decoded = packed.decode()
        assert decoded.stride() == y.stride() and packed.nbytes <= codec.size(y.shape, y.dtype)
        error = (decoded - y).abs().max().item()
        largest = y.abs().max().item()
        if isinstance(codec, (Quantized, Half)):
            assert error <= largest * (2 / 7 if getattr(codec, "bits", 8) == 4 else 2 / 127)
        elif isinstance(codec, Normalized):
            assert error <= 5 * 6  # clamped tails of 4 bits; the error bound itself has a test of its own
        elif isinstance(codec, Sparse):
            kept = decoded != 0
            assert torch.all((decoded - y)[kept].abs() <= largest / (100 if codec.values == "int8" else 1000))


def test_parts_travel() -> None:
    """A receiver that knows codec and layout needs the parts alone; `to` moves them."""
    x = example((4, 6))
    for codec in (Quantized(per="row"), Sparse(keep=0.5), LowRank(), Bits(), Half()):
        packed = encode(codec, x)
        received = tuple(part.clone() for part in packed.parts)
        there = Packed(codecs.build(codec.config()), Layout.of(x), received)
        assert torch.equal(there.decode(), packed.decode())
        moved = packed.to("meta")
        assert moved.layout.device.type == "meta" and all(part.is_meta for part in moved.parts)


def test_a_type_without_numbers_is_refused() -> None:
    for codec in (Half(), Quantized(), Sparse(), Normalized(), LowRank(), Bits()):
        for dtype in (torch.int64, torch.complex64):
            with pytest.raises(TypeError, match="Exact"):
                codec.encode(torch.ones(3, dtype=dtype))
    with pytest.raises(TypeError, match="mask"):
        Bits().encode(torch.ones(3, dtype=torch.bool))
    pool = Offsets(input_size=(4,), kernel=(2,), stride=(2,), padding=(0,), dilation=(1,))
    with pytest.raises(TypeError, match="int64"):
        pool.encode(torch.ones(1, 2))


@pytest.mark.parametrize("elements", [10_000])
def test_published_bytes_per_element(elements: int) -> None:
    """The table of bytes per element of the formats, k = keep, at sizes where the chosen index is the cheapest."""
    n = elements * 16
    x = example((n,)) + 10
    for keep, values, width in ((0.5, "float32", 4), (0.25, "float16", 2), (0.1, "bfloat16", 2), (0.1, "int8", 1)):
        packed = Sparse(keep=keep, values=values, selection="exact").encode(x)
        scale = 4 if values == "int8" else 0
        assert packed.nbytes == math.floor(n * keep) * width + n // 8 + scale  # (width k + 0.125) n
    blocks = math.ceil(n / 65536)
    packed = Sparse(keep=0.02, values="float16", selection="exact").encode(x)
    assert packed.nbytes == 4 * (n // 50) + 4 * blocks  # 4 k n
    assert Sparse(keep=0.02, values="int8", selection="exact").encode(x).nbytes == 3 * (n // 50) + 4 * blocks + 4
    assert Quantized(bits=4).encode(x).nbytes == n // 2 + 4  # 0.5 + epsilon
    assert Quantized().encode(x).nbytes == n + 4
    assert Bits().encode(x).nbytes == n // 8


def test_worked_example_of_a_wide_residual_net() -> None:
    """WRN-28-10, batch 200: 440.6 Mi elements enter norms and 440.5 Mi leave gates; published sizes in MiB."""
    mebi = 2**20
    norms, gates = (round(440.6 * mebi),), (round(440.5 * mebi),)
    sizes = {
        "convolution inputs": Sparse(keep=0.1, values="float16", selection="exact").size(gates, torch.float32),
        "norms in 4 bits": Normalized(bits=4, per="tensor").size(norms, torch.float32),
        "norms in 8 bits": Normalized(per="tensor").size(norms, torch.float32),
        "gates": Bits().size(gates, torch.float32),
    }
    assert {name: round(size / mebi) for name, size in sizes.items()} == {
        "convolution inputs": 143,
        "norms in 4 bits": 220,
        "norms in 8 bits": 441,
        "gates": 55,
    }
    assert 418 <= (sizes["convolution inputs"] + sizes["norms in 4 bits"] + sizes["gates"]) / mebi < 419
    assert round((sizes["gates"] + sizes["norms in 8 bits"]) / mebi) == 496
