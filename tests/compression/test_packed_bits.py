"""Bits and nibbles against numpy and plain arithmetic; gates and poolings against autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.compression import Bits, Codec, Offsets, Stub
from acclimate.compression.packing import (
    lookup_bits,
    pack_bits,
    pack_nibbles,
    place,
    positions,
    unpack_bits,
    unpack_nibbles,
)


def flags(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.3


@given(count=st.integers(0, 200), seed=st.integers(0, 5), start=st.integers(0, 9))
@settings(deadline=None)
def test_bits_are_those_of_numpy(count: int, seed: int, start: int) -> None:
    mask = flags(start + count, seed)[start:]
    packed = pack_bits(mask)
    assert packed.dtype == torch.uint8
    assert np.array_equal(packed.numpy(), np.packbits(mask.numpy(), bitorder="little"))
    assert torch.equal(unpack_bits(packed, count), mask)


@given(count=st.integers(0, 33), seed=st.integers(0, 5), start=st.integers(0, 3))
@settings(deadline=None)
def test_nibbles(count: int, seed: int, start: int) -> None:
    codes = torch.randint(0, 16, (start + count,), dtype=torch.int8, generator=torch.Generator().manual_seed(seed))
    packed = pack_nibbles(codes[start:])
    padded = [*codes[start:].tolist(), 0]
    assert packed.tolist() == [padded[i] + 16 * padded[i + 1] for i in range(0, count, 2)]
    assert torch.equal(unpack_nibbles(packed, count), codes[start:])


def test_every_byte_of_bits() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert np.array_equal(unpack_bits(every, 2048).numpy(), np.unpackbits(every.numpy(), bitorder="little"))
    assert torch.equal(pack_bits(unpack_bits(every, 2048)), every)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_lookup_and_placing(dtype: torch.dtype) -> None:
    mask = flags(77)
    out = torch.empty(77, dtype=dtype)
    lookup_bits(pack_bits(mask), out, 3.0, -1.0)
    assert torch.equal(out, torch.where(mask, 3.0, -1.0).to(dtype))
    where = positions(mask)
    assert where.tolist() == [i for i, flag in enumerate(mask.tolist()) if flag]
    sparse = torch.zeros(77, dtype=dtype)
    place(sparse, where, out[where])
    assert torch.equal(sparse, torch.where(mask, 3.0, 0.0).to(dtype))


X = torch.randn(3, 4, 9, 7, generator=torch.Generator().manual_seed(3)) * 4
X.view(-1)[:4] = torch.tensor([0.0, 6.0, -0.0, 3.0])


def gradients(run: Callable[[Tensor], Tensor], codec: Codec | None, x: Tensor) -> Tensor:
    """Gradient by x, where tensors of x's type that backward keeps go through the codec."""
    x = x.clone().requires_grad_()

    def pack(saved: Tensor) -> Any:
        return codec.encode(saved) if codec is not None and saved.dtype in codec.dtypes else saved

    with torch.autograd.graph.saved_tensors_hooks(
        pack, lambda kept: kept if isinstance(kept, Tensor) else kept.decode()
    ):
        y = run(x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype))
    assert x.grad is not None
    return x.grad


GATES: dict[str, tuple[Callable[[Tensor], Tensor], Codec]] = {
    "relu": (F.relu, Bits()),
    "leaky relu": (F.leaky_relu, Bits(predicate="sign")),
    "relu6": (F.relu6, Bits(predicate="inside", low=0.0, high=6.0)),
    "hardtanh": (lambda x: F.hardtanh(x, -1.5, 3.0), Bits(predicate="inside", low=-1.5, high=3.0)),
    "clamp": (lambda x: x.clamp(-1.5, 3.0), Bits(predicate="inside", low=-1.5, high=3.0, inclusive=True)),
    "clamp below": (lambda x: x.clamp(min=3.0), Bits(predicate="inside", low=3.0, inclusive=True)),
    "clamp above": (lambda x: x.clamp(max=-1e6), Bits(predicate="inside", high=-1e6, inclusive=True)),
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gates_have_their_exact_gradient(gate: str, dtype: torch.dtype) -> None:
    run, codec = GATES[gate]
    for x in (X.to(dtype), X.to(dtype).to(memory_format=torch.channels_last)):
        assert torch.equal(gradients(run, codec, x), gradients(run, None, x))


def test_dropout_masks() -> None:
    mask = flags(1003) / 0.7
    for codec in (Bits(predicate="mask"), Bits(predicate="mask", scale=1 / 0.7)):
        assert torch.equal(codec.encode(mask).decode(), mask)
    bools = flags(1003)
    packed = Bits(predicate="mask").encode(bools)
    assert torch.equal(packed.decode(), bools) and packed.nbytes == 126
    assert Bits(predicate="mask").size((1003,), torch.bool) == 126


def test_bits_of_what_is_not_a_number() -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf])
    assert Bits().encode(x).decode().tolist() == [0.0, 1.0, 0.0]
    assert Bits(predicate="sign").encode(x).decode().tolist() == [-1.0, 1.0, -1.0]
    assert Bits(predicate="mask", scale=2.0).encode(x).decode().tolist() == [2.0, 2.0, 2.0]
    assert Bits(predicate="mask").encode(x).decode().isnan().all()


@pytest.mark.parametrize(
    "settings_",
    [
        {"predicate": "inside"},
        {"low": 1.0},
        {"predicate": "inside", "low": 2.0, "high": 1.0},
        {"predicate": "mask", "scale": 0.0},
        {"scale": 1.0},
        {"predicate": "odd"},
    ],
)
def test_bits_settings(settings_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|Expected|must be"):
        Bits(**settings_)


POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@given(
    axes=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    kernel=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    stride=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    padding=st.lists(st.integers(0, 2), min_size=3, max_size=3),
    dilation=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    ceil=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_pooling_indices_come_back(
    axes: int,
    sizes: list[int],
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil: bool,
) -> None:
    size, kernel, stride, dilation = sizes[:axes], kernel[:axes], stride[:axes], dilation[:axes]
    padding = [min(pad, width // 2) for pad, width in zip(padding[:axes], kernel, strict=True)]
    reach = [(width - 1) * gap + 1 for width, gap in zip(kernel, dilation, strict=True)]
    if any(length + 2 * pad < span for length, pad, span in zip(size, padding, reach, strict=True)):
        return
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    _, indices = POOLS[axes](x, kernel, stride, padding, dilation, ceil_mode=ceil, return_indices=True)
    codec = Offsets(
        input_size=tuple(size),
        kernel=tuple(kernel),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
    )
    packed = codec.encode(indices)
    assert torch.equal(packed.decode(), indices)
    assert packed.nbytes == indices.numel() == codec.size(indices.shape, torch.int64)
    assert torch.equal(codec.encode(indices[0]).decode(), indices[0]), "without a batch axis"


def test_pooling_backward_from_offsets() -> None:
    codec = Offsets(input_size=(9, 7), kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1))
    for x in (X, X.to(memory_format=torch.channels_last)):
        assert torch.equal(
            gradients(lambda x: F.max_pool2d(x, 3, 2, 1), codec, x),
            gradients(lambda x: F.max_pool2d(x, 3, 2, 1), None, x),
        )


def test_large_windows_and_foreign_indices() -> None:
    x = torch.randn(2, 2, 20, 20)
    _, indices = F.max_pool2d(x, 20, return_indices=True)
    codec = Offsets(input_size=(20, 20), kernel=(20, 20), stride=(20, 20), padding=(0, 0), dilation=(1, 1))
    packed = codec.encode(indices)
    assert torch.equal(packed.decode(), indices) and packed.nbytes == 8 == codec.size(indices.shape, torch.int64)
    small = Offsets(input_size=(20, 20), kernel=(2, 2), stride=(2, 2), padding=(0, 0), dilation=(1, 1))
    with pytest.raises(ValueError, match="no window"):
        small.encode(torch.full((1, 1, 10, 10), 399))
    with pytest.raises(ValueError, match="axes"):
        small.encode(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="as many"):
        Offsets(input_size=(4, 4), kernel=(2,), stride=(2,), padding=(0,), dilation=(1,))
    with pytest.raises(ValueError, match="whole number"):
        Offsets(input_size=(4,), kernel=(2,), stride=(0,), padding=(0,), dilation=(1,))
    with pytest.raises(ValueError, match="32,768"):
        Offsets(input_size=(400, 400), kernel=(200, 200), stride=(1, 1), padding=(0, 0), dilation=(1, 1))


@pytest.mark.parametrize("groups", [1, 4])
def test_a_stub_is_all_that_frozen_layers_need(groups: int) -> None:
    weight = torch.randn(8, 4 // groups, 3, 3, generator=torch.Generator().manual_seed(0))

    class OnlyInput(Stub):
        def encode(self, tensor: Tensor, *, generator: torch.Generator | None = None) -> Any:
            return tensor if tensor.shape == weight.shape else super().encode(tensor)

    stub = OnlyInput()
    stub.__class__.dtypes = frozenset({torch.float32})
    assert torch.equal(
        gradients(lambda x: F.conv2d(x, weight, groups=groups), stub, X),
        gradients(lambda x: F.conv2d(x, weight, groups=groups), None, X),
    )
    assert torch.equal(
        gradients(lambda x: F.avg_pool2d(x, 3), stub, X), gradients(lambda x: F.avg_pool2d(x, 3), None, X)
    )
    last = X.contiguous(memory_format=torch.channels_last)
    for x in (X, last, X.transpose(0, 2)):
        packed = Stub().encode(x)
        assert packed.nbytes == 0 and packed.parts == ()
        assert packed.decode().stride() == x.stride() and packed.decode().shape == x.shape
