"""Top-k against a sort by magnitude, counts against bits, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.fields.wide_area.replicas.memory import ErrorMemory
from acclimate.fields.wide_area.wire.entries import Entries, largest


def by_sorting(vector: np.ndarray, kept: int) -> np.ndarray:
    """A stable sort: of equal magnitudes the first come first."""
    return np.sort(np.argsort(-np.abs(vector), kind="stable")[:kept])


@given(st.integers(1, 400), st.data())
@settings(max_examples=60, deadline=None)
def test_the_largest_are_those_a_sort_finds(count: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, count))
    seed = data.draw(st.integers(0, 2**32 - 1))
    vector = np.random.default_rng(seed).integers(-3, 4, count).astype(np.float64)  # full of ties and zeros
    found = largest(torch.from_numpy(vector), kept)
    assert found.tolist() == by_sorting(vector, kept).tolist()


@pytest.mark.parametrize("kept", [1, 700, 20_000, 99_999, 100_000])
def test_long_vectors_are_sampled_and_still_exact(kept: int) -> None:
    vector = np.random.default_rng(3).standard_normal(100_000).astype(np.float32)
    vector[5000:9000] = 0.5
    assert largest(torch.from_numpy(vector), kept).tolist() == by_sorting(vector, kept).tolist()


@given(st.integers(2, 60), st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_left_has_contracted(count: int, seed: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, count))
    vector = np.random.default_rng(seed).standard_normal(count)
    left = vector.copy()
    left[largest(torch.from_numpy(vector), kept).numpy()] = 0.0
    assert (left**2).sum() <= (1 - kept / count) * (vector**2).sum() + 1e-12


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kept", [1, 4])
def test_numbers_that_are_not_finite_are_refused(bad: float, kept: int) -> None:
    with pytest.raises(ValueError, match="1 of 4 entries are NaN or infinite"):
        largest(torch.tensor([1.0, bad, 2.0, 3.0]), kept)


def test_dense_messages_refuse_them_too_and_forget_nothing() -> None:
    memory = ErrorMemory(3, Entries())
    memory.vector.copy_(torch.tensor([0.25, 0.5, 1.0]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        memory.compress(torch.tensor([0.0, float("nan"), 0.0]), 1.0)
    assert memory.vector.tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("kept", [0, -1, 5])
def test_impossible_counts_are_named(kept: int) -> None:
    with pytest.raises(ValueError, match="kept"):
        largest(torch.ones(4), kept)


@pytest.mark.parametrize(
    ("values", "bits"), [("float32", 64), ("float16", 48), ("bfloat16", 48), ("same", 64)], ids=lambda each: str(each)
)
@given(ratio=st.floats(1e-4, 1.0), count=st.integers(1, 10**6))
@settings(max_examples=50, deadline=None)
def test_kept_entries_fill_the_budget(values: str, bits: int, ratio: float, count: int) -> None:
    kept = Entries(values=values).kept(ratio, count, torch.float32)  # pyright: ignore[reportArgumentType]
    budget = ratio * 32 * count
    if kept is None:
        assert (bits - 32) * count <= budget
    elif kept > 1:
        assert kept * bits <= budget + 1e-3
        assert (kept + 1) * bits > budget - 1e-3
    if ratio == 1.0:
        assert kept is None


def test_the_published_example() -> None:
    """124M parameters at 0.0126: 781,200 entries, 50.0 Mbit."""
    kept = Entries().kept(0.0126, 124_000_000, torch.float32)
    assert kept == 781_200
    assert kept * 64 == pytest.approx(50.0e6, rel=1e-3)


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan")])
def test_ratios_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        Entries().kept(ratio, 10, torch.float32)


@pytest.mark.parametrize("values", ["float16", "bfloat16"])
@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_rounding_stays_in_the_memory(values: str, ratio: float) -> None:
    gradient = torch.from_numpy(np.random.default_rng(0).standard_normal(50).astype(np.float32))
    gradient[7] = 1e30  # beyond float16
    memory = ErrorMemory(50, Entries(values=values))  # pyright: ignore[reportArgumentType]
    indices, sent = memory.compress(gradient, ratio)
    where = np.arange(50) if indices is None else indices.numpy()
    whole = np.zeros(50)
    whole[where] = sent.double().numpy()
    assert np.isfinite(whole).all()
    left = memory.vector.double().numpy()
    others = np.arange(50) != 7
    np.testing.assert_allclose((whole + left)[others], gradient.double().numpy()[others], rtol=0, atol=1e-7)
    assert np.abs(left[others][np.isin(np.arange(50)[others], where)]).max() > 0
    assert 7 in where
    assert left[7] == pytest.approx(float(gradient[7].double()) - whole[7])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("values", ["same", "float32", "float16", "bfloat16"])
def test_nothing_travels_in_a_wider_type_and_a_ratio_of_one_is_dense(kind: torch.dtype, values: str) -> None:
    entries = Entries(values=values)  # pyright: ignore[reportArgumentType]
    assert entries.kept(1.0, 1000, kind) is None
    vector = torch.tensor([0.5, -2.0, torch.finfo(kind).max], dtype=kind)
    sent = entries.rounded(vector)
    assert sent.dtype.itemsize <= kind.itemsize and bool(sent.isfinite().all())
    assert sent[:2].tolist() == [0.5, -2.0]
    if kind.itemsize == 2:
        assert sent.dtype == kind and torch.equal(sent, vector)
