"""Codes of 8 and 4 bits against their formulas in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.compression import Normalized, Quantized


def example(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reduced(per: str) -> tuple[int, ...]:
    return {"tensor": (0, 1, 2, 3), "channel": (0, 2, 3), "row": (3,)}[per]


def steps(x: Tensor, per: str, bits: int, symmetric: bool) -> Tensor:
    """The scale of each group by definition, in float64."""
    axes, wide = reduced(per), x.double()
    if symmetric:
        return wide.abs().amax(axes, keepdim=True) / (127 if bits == 8 else 7)
    return (wide.amax(axes, keepdim=True) - wide.amin(axes, keepdim=True)) / (255 if bits == 8 else 15)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("per", ["tensor", "channel", "row"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("last", [False, True], ids=["plain", "channels last"])
def test_the_error_is_half_a_step(bits: int, per: str, symmetric: bool, dtype: torch.dtype, last: bool) -> None:
    x = (example(3, 5, 4, 7) * torch.tensor([1e-3, 1.0, 50.0, 1.0, 3.0])[:, None, None] + 0.3).to(dtype)
    x = x.to(memory_format=torch.channels_last) if last else x
    decoded = Quantized(bits=bits, per=per, symmetric=symmetric).encode(x).decode()
    step = steps(x, per, bits, symmetric)
    rounding = torch.finfo(dtype).eps if dtype.itemsize == 2 else 4 * torch.finfo(torch.float32).eps
    slack = rounding * (x.double().abs() + 128 * step)
    error = (decoded.double() - x.double()).abs()
    assert torch.all(error <= step / 2 + slack)
    assert error.max() > step.max() / 4, "and not much less: the bits are used"


@pytest.mark.parametrize("bits", [8, 4])
def test_ends_and_zero_are_exact(bits: int) -> None:
    x = torch.tensor([-3.0, 0.0, 1.0, 3.0])
    symmetric = Quantized(bits=bits).encode(x).decode()
    assert symmetric[1] == 0 and torch.allclose(symmetric[[0, 3]], x[[0, 3]], rtol=3e-7)
    affine = Quantized(bits=bits, symmetric=False).encode(x + 5).decode()
    assert torch.allclose(affine[[0, 3]], x[[0, 3]] + 5, rtol=3e-7)
    post_relu = Quantized(bits=bits, symmetric=False).encode(example(1000).relu()).decode()
    assert torch.equal(post_relu == 0, example(1000).relu() < post_relu[post_relu > 0].min() / 2)


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_have_their_own_scale(bits: int) -> None:
    x = example(23) * torch.logspace(-3, 3, 23)
    decoded = Quantized(bits=bits, per="block", parameter=5).encode(x).decode()
    for start in range(0, 23, 5):
        block = x[start : start + 5]
        step = block.abs().max() / (127 if bits == 8 else 7)
        assert torch.all((decoded[start : start + 5] - block).abs() <= step * (0.5 + 1e-5))


@pytest.mark.parametrize("per", ["row", "channel"])
def test_groups_that_are_not_finite_are_loud_and_alone(per: str) -> None:
    x = example(4, 4)
    for bits in (8, 4):
        for symmetric in (True, False):
            for bad in (math.nan, math.inf, -math.inf):
                y = x.clone()
                y[1, 1] = bad
                decoded = Quantized(bits=bits, per=per, symmetric=symmetric).encode(y).decode()
                lost = torch.zeros(4, 4, dtype=torch.bool)
                lost[1 if per == "row" else slice(None), 1 if per == "channel" else slice(None)] = True
                assert torch.equal(decoded.isnan(), lost)
    too_large = torch.tensor([1e39, 1.0], dtype=torch.float64)
    assert Quantized().encode(too_large).decode().isnan().all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_ends_of_float32(bits: int, symmetric: bool) -> None:
    """Neither overflow nor reciprocals of denormals: large ranges keep their step, tiny groups become constant."""
    large = torch.tensor([-3e38, 1e38, 3e38])
    decoded = Quantized(bits=bits, symmetric=symmetric).encode(large).decode()
    step = 3e38 / (127 if bits == 8 else 7) if symmetric else 6e38 / (255 if bits == 8 else 15)
    assert torch.all((decoded.double() - large.double()).abs() <= step * 0.5001)
    tiny = torch.tensor([-1e-40, 0.0, 2e-40])
    decoded = Quantized(bits=bits, symmetric=symmetric).encode(tiny).decode()
    assert torch.all((decoded - tiny).abs() <= 255 * 2.0**-126)
    assert torch.equal(Quantized(bits=bits, symmetric=symmetric).encode(torch.zeros(5)).decode(), torch.zeros(5))
    same = torch.full((5,), 7.25)
    assert torch.allclose(Quantized(bits=bits, symmetric=symmetric).encode(same).decode(), same, rtol=3e-7)


def test_float16_stays_in_range() -> None:
    x = torch.tensor([65504.0, -65504.0, 65000.0], dtype=torch.float16)
    for codec in (Quantized(bits=4), Quantized(bits=4, symmetric=False), Normalized(bits=4, per="tensor")):
        assert codec.encode(x).decode().isfinite().all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_stochastic_rounding_is_unbiased(bits: int, symmetric: bool) -> None:
    """Mean error within 5 standard errors, for each of a ladder of fractions; never off by a step or more."""
    draws = 40_000
    levels = torch.linspace(-1, 1, 41)[:, None]
    x = levels.expand(41, draws).contiguous()
    codec = Quantized(bits=bits, symmetric=symmetric, stochastic=True)
    decoded = codec.encode(x, generator=torch.Generator().manual_seed(0)).decode().double()
    highest = 255 if bits == 8 else 15
    step = 2 / highest if not symmetric else 1 / (127 if bits == 8 else 7)
    error = decoded - x.double()
    assert error.abs().max() < step * (1 + 1e-4)
    fraction = ((x[:, 0].double() + (0 if symmetric else 1)) / step) % 1
    deviation = step * (fraction * (1 - fraction) / draws).sqrt()
    assert torch.all(error.mean(1).abs() <= 5 * deviation + step * 3e-5)  # resolution 2^-16 and float32
    overall = (deviation.square().sum() / 41).sqrt() / math.sqrt(41)
    assert error.mean().abs() <= 5 * overall + step * 3e-5


def test_stochastic_rounding_follows_its_generator() -> None:
    x, codec = example(1000), Quantized(bits=4, stochastic=True)
    first, same, other = (codec.encode(x, generator=torch.Generator().manual_seed(s)).decode() for s in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    before = torch.random.get_rng_state()
    codec.encode(x, generator=torch.Generator())
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="generator"):
        codec.encode(x)


@pytest.mark.parametrize(
    "wrong", [{"bits": 3}, {"per": "pixel"}, {"per": "block", "parameter": 0}, {"parameter": -1}, {"parameter": True}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Quantized(**wrong)
    with pytest.raises(ValueError, match="divide"):
        Quantized(per="group", parameter=3).encode(example(2, 4))


NORMS = {
    "channel": ({"per": "channel"}, (0, 2, 3)),
    "row": ({"per": "row"}, (3,)),
    "rows of two axes": ({"per": "row", "parameter": 2}, (2, 3)),
    "rows of three axes": ({"per": "row", "parameter": 3}, (1, 2, 3)),
    "instance": ({"per": "group", "parameter": 6}, (2, 3)),
    "tensor": ({"per": "tensor"}, (0, 1, 2, 3)),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("last", [False, True], ids=["plain", "channels last"])
def test_normalised_inputs(norm: str, bits: int, last: bool) -> None:
    """Within reach the error is half a step of sigma R / L; beyond, it is mu +- R sigma; mu and sigma are right."""
    chosen, axes = NORMS[norm]
    x = example(4, 6, 9, 8) * torch.rand(6, 1, 1) * 10 + example(6, 1, 1) * 30
    x = x.to(memory_format=torch.channels_last) if last else x
    codec = Normalized(bits=bits, **chosen)
    packed = codec.encode(x)
    decoded, wide = packed.decode().double(), x.double()
    variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
    sigma, reach, levels = variance.sqrt(), (6.0 if bits == 8 else 2.8), (127 if bits == 8 else 7)
    expected = wide.clamp(mean - reach * sigma, mean + reach * sigma)
    slack = 1e-5 * (wide.abs() + sigma * reach)
    assert torch.all((decoded - expected).abs() <= sigma * reach / levels / 2 + slack)
    _, means, deviations = packed.parts
    assert means.dtype == deviations.dtype == torch.float32
    assert torch.allclose(means.sort().values.double(), mean.flatten().sort().values, atol=1e-4)
    assert torch.allclose(deviations.sort().values.double(), sigma.flatten().sort().values, rtol=1e-4)


@pytest.mark.parametrize("bits", [8, 4])
def test_groups_of_channels(bits: int) -> None:
    x = example(3, 6, 4, 4) * torch.tensor([1.0, 1, 1, 9, 9, 9])[:, None, None]
    grouped = Normalized(bits=bits, per="group", parameter=2).encode(x).decode()
    rows = Normalized(bits=bits, per="row").encode(x.reshape(6, 48)).decode()
    assert torch.equal(grouped.reshape(6, 48), rows)


def test_normalised_edges() -> None:
    same = torch.full((2, 3, 4), 1234.5)
    for bits in (8, 4):
        assert torch.equal(Normalized(bits=bits).encode(same).decode(), same), "no deviation"
        shifted = example(64, 2, 8) + 1e4
        error = (Normalized(bits=bits).encode(shifted).decode() - shifted).abs().max()
        assert error <= shifted.std((0, 2)).max() * (6 / 127 if bits == 8 else 2.8 / 7) + (bits == 4) * 3
        bad = example(2, 3, 4)
        bad[0, 1, 2] = math.inf
        assert torch.equal(
            Normalized(bits=bits).encode(bad).decode().isnan().any(2).any(0), torch.tensor([False, True, False])
        )
    with pytest.raises(ValueError, match="per"):
        Normalized(per="block")  # type: ignore[arg-type]


@pytest.mark.parametrize("bits,least", [(8, 0.9999), (4, 0.98)])
def test_gradients_of_batch_norm_from_normalised_inputs(bits: int, least: float) -> None:
    """Textbook gradients from the decoded input against those from the exact one, in float64."""
    x, g = (
        example(32, 5, 6, 6).double() * 3 + 2,
        example(32, 5, 6, 6, seed=1).double() + 0.3 * example(32, 5, 6, 6).double(),
    )
    results: list[Tensor] = []
    for kept in (x, Normalized(bits=bits).encode(x).decode()):
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        normal = (kept - mean) / (variance + 1e-5).sqrt()
        gain = (g * normal).sum((0, 2, 3), keepdim=True)
        count = x.numel() / 5
        results.append((g - g.mean((0, 2, 3), keepdim=True) - normal * gain / count).flatten())
    assert torch.cosine_similarity(*results, dim=0) > least


@given(
    values=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40),
    bits=st.sampled_from([8, 4]),
    symmetric=st.booleans(),
)
@settings(deadline=None)
def test_any_numbers(values: list[float], bits: int, symmetric: bool) -> None:
    x = torch.tensor(values)
    decoded = Quantized(bits=bits, symmetric=symmetric).encode(x).decode().double()
    step = steps(x.view(1, 1, 1, -1), "tensor", bits, symmetric).item()
    slack = 1e-6 * (x.double().abs().max().item() + 128 * step) + 256 * 2.0**-126
    assert torch.all((decoded - x.double()).abs() <= step / 2 + slack)
