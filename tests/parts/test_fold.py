"""Views folded into few forwards, and answers to single rows put into one."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import acclimate
from acclimate.core.inputs import Call
from acclimate.parts.fold import check_whole_images, mean_over_views, together
from methods.reference import by_batch, small_net, stream


def shaded(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * (0.5 + torch.rand(1, generator=generator, dtype=x.dtype))


@pytest.mark.parametrize(
    ("rows_at_once", "forwards"),
    [(1024, [84]), (36, [36, 36, 12]), (47, [36, 36, 12]), (12, [12] * 7), (1, [12] * 7)],
)
def test_the_mean_over_views_is_that_of_single_forwards(rows_at_once, forwards):
    """In chunks of as many whole views as fit, at least one, each with its own statistics and its own draw."""
    x = stream(1)[0]
    adapted = acclimate.adapt(small_net(), "source", normalization="batch")
    generator = torch.Generator().set_state(adapted.state.generator("views").get_state())
    rows: list[int] = []
    adapted.module.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    adapted.state.begin(Call((x,), {}, 0))
    with torch.no_grad():
        found = mean_over_views(adapted.state, x, shaded, 7, rows_at_once)
        twin = by_batch(small_net())
        expected = torch.stack([twin(shaded(x, generator)) for _ in range(7)]).mean(0)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert rows == forwards
    assert adapted.state.forwards == 7


def test_the_mean_is_taken_in_float32():
    """In bfloat16 a running sum of 64 numbers near 256 would be off by whole units."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).to(torch.bfloat16)
    torch.nn.init.constant_(net[1].weight, 64.25)
    adapted = acclimate.adapt(net, "source")
    x = torch.ones(3, 1, 2, 2, dtype=torch.bfloat16)
    adapted.state.begin(Call((x,), {}, 0))
    one = adapted.state.forward(x, answering=False)
    found = mean_over_views(adapted.state, x, lambda x, g: x, 64, 6)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, one)


@pytest.mark.parametrize(
    ("shape", "extremes", "logits", "message"),
    [
        ((8, 6), (0, 1), (8, 5), r"\[8, 6\] and \[8, 5\]"),
        ((8, 3, 4, 4), (0, 1), (8, 5, 4, 4), r"\[8, 5, 4, 4\].*views="),
        ((8, 3, 4, 4), (-2, 1), (8, 5), "found values from -2"),
    ],
)
def test_what_views_are_not_made_of(shape, extremes, logits, message):
    with pytest.raises(ValueError, match=message):
        check_whole_images("Mine", torch.zeros(shape), extremes, torch.zeros(logits))
    check_whole_images("Mine", torch.zeros(8, 3, 4, 4), (0, 1), torch.zeros(8, 5))


class Pair(NamedTuple):
    logits: Tensor
    rest: dict[str, object]


def test_single_answers_become_one():
    outputs = [
        Pair(torch.full((1, 3), float(n)), {"features": [torch.full((1, 2, 2), n)], "scale": torch.tensor(n), "n": n})
        for n in range(4)
    ]
    found = together(outputs)
    assert isinstance(found, Pair)
    assert found.logits[:, 0].tolist() == [0, 1, 2, 3]
    assert found.rest["features"][0].shape == (4, 2, 2)
    assert int(found.rest["scale"]) == found.rest["n"] == 0
    rows = [torch.full((1, 2), float(n)) for n in range(3)]
    assert torch.equal(together(rows), torch.cat(rows))
