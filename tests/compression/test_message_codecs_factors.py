"""Messages of four-bit factors and of selected entries against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.compression import LowRank, LowRankInt4, OfEvery, TopEntries, from_bytes, to_bytes

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def example(rows: int, columns: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns))).to(dtype)


def test_the_bytes_of_four_bit_factors_by_hand() -> None:
    """Of rank 1, with 2 and 4 numbers: two consecutive rows a byte, the first low; steps, then smallest numbers."""
    halves = np.array([0.5, -1.0, 0.25, 2.0], dtype="<f2")
    step_u, low_u, step_v, low_v = halves
    raw = b"".join((bytes([0x2F]), halves[:2].tobytes(), bytes([0x10, 0x4A]), halves[2:].tobytes()))
    u = np.array([15, 2]) * step_u.astype(float) + low_u
    v = np.array([0, 1, 10, 4]) * step_v.astype(float) + low_v
    codec = LowRankInt4(rank=1)
    packed = from_bytes(codec, torch.tensor(list(raw), dtype=torch.uint8), torch.empty(2, 4))
    np.testing.assert_allclose(packed.decode().numpy(), np.outer(u, v), rtol=1e-6)
    assert len(raw) == codec.size((2, 4), torch.float32) == (2 + 4) // 2 + 8


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_four_bit_factors_lie_within_half_a_step(dtype: torch.dtype) -> None:
    """Each column is read back within half of the step from its smallest to its largest number over 15."""
    x = example(40, 60, dtype)
    left, right = (
        factor.double().numpy() for factor in LowRank(rank=6, iterations=3, values="float32").encode(x).parts
    )
    parts = LowRankInt4(rank=6).encode(x).parts
    for factor, (codes, step, low) in ((left, parts[:3]), (right, parts[3:])):
        steps, lows = np.ptp(factor, axis=0) / 15, factor.min(0)
        np.testing.assert_allclose(step.double().numpy(), steps, rtol=1e-3)
        np.testing.assert_allclose(low.double().numpy(), lows, rtol=1e-3)
        both = codes.numpy().astype(int)
        numbers = np.stack((both & 15, both >> 4), 1).reshape(factor.shape)
        assert numbers.min() == 0 and numbers.max() == 15
        found = numbers * step.double().numpy() + low.double().numpy()
        assert np.all(np.abs(found - factor) <= 0.5 * steps + 2e-3 * (np.abs(lows) + 15 * steps))


def test_low_rank_finds_the_best_approximation() -> None:
    """Singular values that fall: the error is that of the truncated decomposition; four bits add their steps."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 48)))[0] for n in (64, 48))
    values = 2.0 ** -np.arange(48)
    x = (left * values) @ right.T
    best = np.linalg.norm(values[8:]) / np.linalg.norm(values)
    found = LowRank(rank=8, iterations=3, values="float32").encode(torch.from_numpy(x).float()).decode().numpy()
    assert best <= np.linalg.norm(found - x) / np.linalg.norm(x) < 1.01 * best + 1e-6
    rough = LowRankInt4(rank=8).encode(torch.from_numpy(x).float()).decode().numpy()
    assert best < np.linalg.norm(rough - x) / np.linalg.norm(x) < 0.2


def test_a_generator_draws_the_start_and_none_is_the_same_start() -> None:
    x = example(32, 48)
    codec = LowRankInt4(rank=2)
    raw = [to_bytes(codec.encode(x, generator=torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)]
    assert torch.equal(raw[0], raw[1]) and not torch.equal(raw[0], raw[2])
    assert torch.equal(to_bytes(codec.encode(x)), to_bytes(codec.encode(x)))


@pytest.mark.parametrize("columns", [2, 6])
def test_rank_above_the_matrix_and_constant_columns(columns: int) -> None:
    x = torch.full((4, columns), -2.5)
    packed = LowRankInt4(rank=32).encode(x)
    assert packed.nbytes == LowRankInt4(rank=32).size((4, columns), torch.float32)
    assert torch.allclose(packed.decode(), x, rtol=0.01)


@settings(max_examples=40, deadline=None)
@given(
    of=st.sampled_from([2, 4, 8, 16]),
    rows=st.integers(1, 4),
    groups=st.sampled_from([2, 4, 6]),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 100),
)
def test_one_of_every_few(of: int, rows: int, groups: int, dtype: torch.dtype, seed: int) -> None:
    x = example(rows, of * groups, dtype, seed)
    packed = OfEvery(of=of).encode(x)
    exact = x.double().numpy().reshape(-1, of)
    where = np.abs(exact).argmax(1)
    kept = np.zeros_like(exact)
    kept[np.arange(len(exact)), where] = exact[np.arange(len(exact)), where]
    size = np.sort(np.abs(exact), 1)
    alone = size[:, -1] > size[:, -2]  # the largest is one alone
    decoded = packed.decode().double().numpy().reshape(-1, of)
    np.testing.assert_allclose(decoded[alone], kept[alone], rtol=2.0**-11, atol=1e-7)
    assert np.array_equal(np.abs(decoded).max(1), np.abs(decoded).sum(1))
    if alone.all():
        first, second = where[0::2], where[1::2]
        assert packed.parts[1].tolist() == (first * 16 + second).tolist()
    assert len(to_bytes(packed)) == 2.5 * x.numel() / of


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 6),
    columns=st.integers(0, 9),
    keep=st.floats(0, 1, exclude_min=True),
    zeros=st.floats(0, 1),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 100),
)
def test_the_largest_entries(rows: int, columns: int, keep: float, zeros: float, dtype: torch.dtype, seed: int) -> None:
    """Distinct magnitudes, some set to zero: those of the highest ranks, in order of place, filled up with zeros."""
    rng = np.random.default_rng(seed)
    sizes = rng.permutation(rows * columns) + 1.0
    sizes *= rng.choice([-1, 1], size=sizes.shape) * (rng.random(sizes.shape) >= zeros)
    x = torch.from_numpy(sizes.reshape(rows, columns)).to(dtype)
    kept = min(rows * columns, max(1, int(np.floor(keep * rows * columns + 1e-6))))
    expected = np.where(np.abs(sizes) > rows * columns - kept, sizes, 0)
    if zeros:  # fewer nonzeros: ranks among those that are left
        order = np.argsort(-np.abs(sizes))[:kept]
        expected = np.zeros_like(sizes)
        expected[order] = sizes[order]
    packed = TopEntries(keep=keep).encode(x)
    values, places = packed.parts
    there = np.flatnonzero(expected)
    assert len(values) == len(places) == kept
    assert places.tolist() == [*there, *[0] * (kept - len(there))]
    assert values.double().tolist() == [*expected[there], *[0.0] * (kept - len(there))]
    assert packed.decode().double().view(-1).tolist() == expected.tolist()


def test_largest_entries_over_several_chunks() -> None:
    x = example(700, 800)
    exact = x.numpy().reshape(-1)
    packed = TopEntries(keep=0.01).encode(x)
    order = np.sort(np.argsort(-np.abs(exact))[:5600])
    assert packed.parts[1].tolist() == order.tolist()
    assert packed.parts[0].tolist() == exact[order].astype(np.float16).tolist()
    assert packed.nbytes == 6 * 5600


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_largest_entry_is_kept_of_however_few(dtype: torch.dtype) -> None:
    x = torch.tensor([[1.0, -2.0, 0.5], [0.25, 1.5, -0.5]], dtype=dtype)
    for keep in (1e-9, 0.05, 1 / 6):
        packed = TopEntries(keep=keep).encode(x)
        assert packed.nbytes == TopEntries(keep=keep).size(x.shape, dtype) == 6
        assert packed.decode().tolist() == [[0, -2, 0], [0, 0, 0]]
    assert TopEntries(keep=0.05).encode(x[:0]).nbytes == 0
    with pytest.raises(ValueError, match="keep"):
        TopEntries(keep=0.0)


@pytest.mark.parametrize("codec", [OfEvery(of=4), TopEntries(keep=0.5)], ids=str)
def test_large_entries_are_held_to_float16(codec: OfEvery | TopEntries) -> None:
    x = torch.zeros(2, 4)
    x[0, 1], x[1, 2] = 1e6, -1e6
    assert codec.encode(x).decode().tolist() == [[0, 65504, 0, 0], [0, 0, -65504, 0]]
    assert codec.encode(x.bfloat16()).decode()[0, 1] == x.bfloat16()[0, 1]
