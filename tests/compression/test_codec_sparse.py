"""Magnitude selection, its indices and its bytes; low rank; half; exact."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acclimate.compression import Exact, Half, LowRank, Sparse, low_rank_factors


def example(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_sorting(x: Tensor, kept: int) -> Tensor:
    """x with all but the `kept` largest magnitudes zero; the first of equals."""
    flat = x.flatten()
    order = flat.abs().sort(descending=True, stable=True).indices[:kept]
    out = torch.zeros_like(flat)
    out[order] = flat[order]
    return out.view(x.shape)


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.29, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("count", [1, 9, 100, 4096, 70_001, 600_000])
def test_exact_selection_is_that_of_sorting(keep: float, count: int) -> None:
    x = example(count)
    packed = Sparse(keep=keep, selection="exact").encode(x)
    kept = int(round(keep * 1000) * count // 1000)
    assert torch.equal(packed.decode(), by_sorting(x, kept))
    assert packed.parts[1].numel() == kept and packed.nbytes == Sparse(keep=keep, selection="exact").size(
        (count,), x.dtype
    )


@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=60),
    keep=st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]),
    selection=st.sampled_from(["exact", "sampled"]),
)
@settings(deadline=None)
def test_ties_and_zeros(values: list[int], keep: float, selection: Any) -> None:
    """Few distinct magnitudes: the count is exact, the first of equals stay, zeros never."""
    x = torch.tensor(values, dtype=torch.float32)
    packed = Sparse(keep=keep, selection=selection).encode(x)
    kept = min(math.floor(keep * len(values)), int(x.count_nonzero()))
    assert packed.parts[1].numel() == kept
    assert torch.equal(packed.decode(), by_sorting(x, kept))


@pytest.mark.parametrize("selection", ["exact", "sampled"])
def test_ties_in_large_tensors(selection: Any) -> None:
    for x in (torch.ones(300_000), example(300_000).sign(), example(300_000).relu().sign()):
        for keep in (0.1, 0.9, 1.0):
            packed = Sparse(keep=keep, selection=selection).encode(x)
            kept = min(round(keep * 300_000), int(x.count_nonzero()))
            assert packed.parts[1].numel() == kept
            assert torch.equal(packed.decode(), by_sorting(x, kept))


@pytest.mark.parametrize("keep", [0.003, 0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1_000_003,), (16, 64, 32, 32)])
def test_sampled_selection(keep: float, shape: tuple[int, ...]) -> None:
    """The fraction within 5 deviations of its sample, never above 1.05 k; everything kept outweighs everything not."""
    x = example(*shape)
    if len(shape) == 4:  # channels of very different size, which a fixed stride would not see
        x = (x * torch.logspace(-3, 2, 64)[:, None, None]).to(memory_format=torch.channels_last)
    codec = Sparse(keep=keep)
    packed = codec.encode(x)
    decoded = packed.decode()
    kept = packed.parts[1].numel()
    count = x.numel()
    assert kept <= 1.05 * keep * count and packed.nbytes <= codec.size(shape, x.dtype)
    assert kept >= (keep - 5 * math.sqrt(keep * (1 - keep) / 65536)) * count
    chosen = decoded != 0
    assert int(chosen.sum()) == kept and torch.equal(decoded[chosen], x[chosen])
    assert x[chosen].abs().min() >= x[~chosen].abs().max()
    assert torch.equal(codec.encode(x).decode(), decoded), "no chance in it"


def test_keep_everything_is_lossless() -> None:
    x = example(300_001).relu()
    packed = Sparse(keep=1).encode(x)
    assert torch.equal(packed.decode(), x)
    assert packed.nbytes == math.ceil(300_001 / 8) + 4 * int(x.count_nonzero())


@pytest.mark.parametrize("keep,form", [(0.3, torch.uint8), (0.02, torch.int16), (0.000005, torch.int32)])
def test_the_cheapest_index_is_taken(keep: float, form: torch.dtype) -> None:
    """One bit an element, 2 K and 4 a block, or 4 K, whichever is least for the K that were kept."""
    count = 1_000_000
    x = example(count)
    packed = Sparse(keep=keep, selection="exact", values="float16").encode(x)
    kept, blocks = round(keep * count), math.ceil(count / 65536)
    costs = {torch.uint8: math.ceil(count / 8), torch.int16: 2 * kept + 4 * blocks, torch.int32: 4 * kept}
    assert packed.parts[0].dtype == form and costs[form] == min(costs.values())
    assert packed.nbytes == costs[form] + 2 * kept
    assert torch.equal(packed.decode(), by_sorting(x, kept).half().float())


@pytest.mark.parametrize("keep", [0.02, 0.5])
def test_types_of_values(keep: float) -> None:
    x = example(70_000) * 100
    exact = by_sorting(x, round(keep * 70_000)).double()
    for values, relative in (("float32", 0.0), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)):
        decoded = Sparse(keep=keep, values=values, selection="exact").encode(x).decode().double()
        assert torch.all((decoded - exact).abs() <= relative * exact.abs())
    decoded = Sparse(keep=keep, values="int8", selection="exact").encode(x).decode().double()
    assert torch.all((decoded - exact).abs() <= x.abs().max() / 127 * 0.50001)


def test_what_is_not_finite_comes_back_not_finite() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        x = example(1000)
        x[17] = bad
        for values in ("same", "bfloat16", "float16", "int8"):
            decoded = Sparse(keep=0.1, values=values).encode(x).decode()
            assert not decoded[17].isfinite()
            if values == "int8":
                assert int(decoded.isnan().sum()) == 100
    lost = torch.full((200_000,), math.nan)
    assert int(Sparse(keep=0.5).encode(lost).decode().isnan().sum()) == 100_000


def test_nothing_kept_is_valid() -> None:
    for x in (example(50), torch.zeros(300_000), torch.zeros(0)):
        packed = Sparse(keep=0.01 if x.any() else 0.5).encode(x)
        assert packed.nbytes == 0 and torch.equal(packed.decode(), torch.zeros_like(x))


@pytest.mark.parametrize("wrong", [{"keep": 1.1}, {"keep": -0.1}, {"values": "int4"}, {"selection": "random"}])
def test_sparse_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Sparse(**wrong)


def test_low_rank_matrices_are_exact() -> None:
    x = (example(30, 3) @ example(3, 50, seed=1)).view(30, 5, 10)
    packed = LowRank(rank=3).encode(x)
    assert torch.allclose(packed.decode(), x, atol=1e-5)
    assert packed.nbytes == 4 * 3 * 80
    rows = LowRank(rank=3, rows=-1).encode(x.view(5, 6, 5, 10).flatten(0, 1).view(5, 6, 50))
    assert rows.nbytes == 4 * 3 * 80 and torch.allclose(rows.decode().view(30, 5, 10), x, atol=1e-5)


def test_low_rank_is_near_the_best() -> None:
    """Within 5 % of the truncated singular value decomposition, and never better; more iterations come closer."""
    spectrum = torch.diag(0.8 ** torch.arange(40.0))
    left, right = torch.linalg.qr(example(60, 40)).Q, torch.linalg.qr(example(50, 40, seed=1)).Q
    x = left @ spectrum @ right.T
    best = torch.linalg.svdvals(x.double())[6:].norm()
    errors = [
        (LowRank(rank=6, iterations=n).encode(x, generator=torch.Generator().manual_seed(0)).decode() - x)
        .double()
        .norm()
        for n in (1, 2, 6)
    ]
    assert best * 0.99999 <= errors[2] <= errors[1] * 1.0001 and errors[1] <= errors[0] * 1.0001
    assert errors[2] <= 1.05 * best


def test_a_warm_start_finds_a_matrix_that_stays() -> None:
    x = example(40, 30)
    start = example(30, 4, seed=1)
    error: list[float] = []
    for _ in range(30):
        left, start = low_rank_factors(x, start, 1)
        error.append((x - left @ start.T).norm().item())
    best = torch.linalg.svdvals(x)[4:].norm().item()
    assert error[-1] < error[0] and error[-1] <= 1.02 * best
    assert torch.allclose(left.T @ left, torch.eye(4), atol=1e-5)


def test_low_rank_edges() -> None:
    assert torch.equal(LowRank().encode(torch.zeros(3, 4)).decode(), torch.zeros(3, 4))
    bad = example(5, 6)
    bad[1, 2] = math.inf
    assert LowRank().encode(bad).decode().isnan().all()
    for wrong in ({"rank": 0}, {"iterations": 0}, {"rows": 0}, {"values": "int8"}):
        with pytest.raises(ValueError, match="must"):
            LowRank(**wrong)  # type: ignore[arg-type]


def test_half() -> None:
    x = torch.cat((example(1000) * 100, torch.tensor([1e6, -1e6, 65504.0, 0.0])))
    limited = x.double().clamp(-65504, 65504)
    assert torch.all((Half().encode(x).decode().double() - limited).abs() <= 2.0**-11 * limited.abs() + 2.0**-25)
    decoded = Half(kind="bfloat16").encode(x).decode().double()
    assert torch.all((decoded - x.double()).abs() <= 2.0**-8 * x.double().abs())
    bad = torch.tensor([math.inf, -math.inf, math.nan])
    assert Half().encode(bad).decode().isnan().all()
    assert torch.equal(Half(kind="bfloat16").encode(bad).decode()[:2], bad[:2])
    already = example(10).half()
    assert torch.equal(Half().encode(already).decode(), already)
    wide = torch.tensor([1e300, 1.0], dtype=torch.float64)
    assert Half().encode(wide).decode().tolist() == [65504.0, 1.0]


def test_exact_watches_for_changes() -> None:
    base = torch.ones(4, 5)
    for tensor, write in ((base, base), (base[1], base), (base, base.view(-1)), (base.detach(), base)):
        packed = Exact().encode(tensor)
        assert packed.decode() is tensor and packed.nbytes == 80
        write.add_(1)
        with pytest.raises(RuntimeError, match="changed in place"):
            packed.decode()
    assert Exact().size((4, 5), torch.float32) == 80
    assert Exact().encode(base[1]).dense_nbytes == 20
    with torch.inference_mode():
        free = torch.ones(3)
        assert Exact().encode(free).decode() is free
    integers = torch.arange(3)
    assert Exact().encode(integers).decode() is integers


def test_storages_are_counted_once() -> None:
    from acclimate.core.meter import tensor_bytes

    x = torch.zeros(10)
    assert tensor_bytes([x, x[2:4], x.view(2, 5), torch.zeros(1)]) == 44
