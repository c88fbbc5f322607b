"""The order of tokens over devices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from acclimate.fields.diffusion.attach.sequence import by_device, by_stretch, own_part


@given(st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_devices_own_their_part_of_each_stretch_and_nothing_is_lost(size: int, parts: list[int]) -> None:
    lengths = [size * part for part in parts]
    tokens = torch.arange(2 * sum(lengths) * 3).view(2, sum(lengths), 3)
    ordered = by_device(tokens, lengths, size)
    for rank, shard in enumerate(ordered.chunk(size, 1)):
        starts = [sum(lengths[:index]) + rank * part for index, part in enumerate(parts)]
        places = [place for start, part in zip(starts, parts, strict=True) for place in range(start, start + part)]
        assert torch.equal(shard, tokens[:, places])
        assert torch.equal(own_part(tokens, lengths, rank, size), tokens[:, places])
        assert torch.equal(own_part(tokens[0], lengths, rank, size, axis=0), tokens[0, places])
    assert torch.equal(by_stretch(ordered, lengths, size), tokens)


def test_a_stretch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[6, 7\] tokens for 2 devices"):
        by_device(torch.zeros(1, 13, 1), (6, 7), 2)
