"""Attention in pieces against the softmax written out in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.fields.diffusion.exchange import attention as module
from acclimate.fields.diffusion.exchange.attention import attention, merge, partial_attention
from acclimate.fields.diffusion.exchange.shards import cut, joined


def written_out(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) * scale
    peak = scores.max(-1, keepdims=True)
    powers = np.exp(scores - peak)
    out = np.einsum("bhnm,bmhd->bnhd", powers / powers.sum(-1, keepdims=True), v)
    return out, (peak[..., 0] + np.log(powers.sum(-1))).transpose(0, 2, 1)


def draw(seed: int, size: float = 1.0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [size * generator.standard_normal((2, n, 3, 4)) for n in (5, 12, 12)]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), size=st.sampled_from([0.1, 1.0, 30.0]), cuts=st.lists(st.integers(1, 11), max_size=4))
def test_merged_pieces_are_the_whole(seed: int, size: float, cuts: list[int]) -> None:
    q, k, v = draw(seed, size)
    tensors = [torch.from_numpy(each).float() for each in (q, k, v)]
    edges = [0, *sorted(set(cuts)), 12]
    total = None
    for begin, end in itertools.pairwise(edges):
        piece = partial_attention(tensors[0], tensors[1][:, begin:end], tensors[2][:, begin:end], 0.3)
        total = piece if total is None else merge(*total, *piece)
    assert total is not None
    out, weight = written_out(*(each.double().numpy() for each in tensors), 0.3)
    np.testing.assert_allclose(total[0].numpy(), out, rtol=0, atol=2e-4 * size)
    np.testing.assert_allclose(total[1].numpy(), weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [None, 0.2])
def test_attention_is_the_softmax(scale: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = draw(0)
    tensors = [torch.from_numpy(each).float() for each in (q, k, v)]
    out, _ = written_out(q, k, v, 0.5 if scale is None else scale)
    np.testing.assert_allclose(attention(*tensors, scale).numpy(), out, atol=1e-5)
    np.testing.assert_allclose(partial_attention(*tensors, scale)[0].numpy(), out, atol=1e-5)
    monkeypatch.setattr(module, "_ROOM", 100)  # two queries at a time
    np.testing.assert_allclose(partial_attention(*tensors, scale)[0].numpy(), out, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 4), parts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_shards_are_put_together_again(size: int, parts: list[int]) -> None:
    segments = [size * part for part in parts]
    tensor = torch.randn(2, sum(segments), 3, generator=torch.Generator().manual_seed(0))
    shards = cut(tensor, size, segments)
    assert all(shard.shape == (2, sum(parts), 3) for shard in shards)
    assert torch.equal(joined(shards, segments), tensor)
    begin = 0
    for segment, part in zip(segments, parts, strict=True):
        own = shards[-1][:, sum(segments[: segments.index(segment)]) // size :][:, :part]
        assert begin or torch.equal(own, tensor[:, segment - part : segment])
        begin += segment


@pytest.mark.parametrize("segments", [None, (4, 6), (3, 7), (0, 10), (4, 4)])
def test_what_does_not_divide_is_explained(segments: tuple[int, int] | None) -> None:
    with pytest.raises(ValueError, match=r"divide by 4|add up"):
        cut(torch.zeros(1, 10, 2), 4, segments)
