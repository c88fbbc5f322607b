"""T3A against a list of supports kept by loops, and what follows from its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.methods.t3a import T3A
from methods.reference import by_batch, entropy, small_net, stream


class Naive:
    """Supports as a list of (unit feature, label, entropy), filtered after each batch."""

    def __init__(self, head: nn.Linear, size: int) -> None:
        self.head, self.size = head, size
        self.supports: list[tuple[Tensor, int, float]] = []
        self.add(head.weight.detach())

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        for h in rows:
            z = self.head(h)[None]
            self.supports.append((h / h.norm(), int(z.argmax()), float(entropy(z))))
        kept = []
        for label in range(self.head.out_features):
            own = sorted((s for s in self.supports if s[1] == label), key=lambda s: s[2])
            kept += own[: self.size]
        self.supports = kept

    @torch.no_grad()
    def answer(self, rows: Tensor) -> Tensor:
        columns = []
        for label in range(self.head.out_features):
            own = [h for h, other, _ in self.supports if other == label]
            c = sum(own) if own else self.head.weight[label]
            columns.append(c / c.norm())
        return rows @ torch.stack(columns, 1)


def labelled_elsewhere(net: nn.Module) -> nn.Module:
    """The head's second row is taken for another class, and its third is the surest of its own."""
    with torch.no_grad():
        net[-1].weight[1] = 0.2 * net[-1].weight[0]
        net[-1].weight[2] *= 3
    return net


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("statistics", ["source", "batch"])
def test_equals_a_list_of_supports(size, statistics):
    net = labelled_elsewhere(small_net())
    twin = by_batch(net) if statistics == "batch" else net
    naive = Naive(twin[-1], size)
    adapted = acclimate.adapt(net, T3A(filter_size=size, normalization=statistics))
    for x in stream(8):
        h = twin[:-1](x).detach()
        naive.add(h)
        assert torch.allclose(adapted(x), naive.answer(h), rtol=0, atol=1e-9)
    x = stream(9)[8]
    with adapted.frozen():
        assert torch.allclose(adapted(x), naive.answer(twin[:-1](x).detach()), rtol=0, atol=1e-9)


def test_the_stream_fills_overflows_and_leaves_empty():
    """What the comparison above runs through: a class over its limit, another below it, rows of the head pushed out."""
    net = labelled_elsewhere(small_net())
    naive = Naive(net[-1], 3)
    rows = {id(support[0]) for support in naive.supports}
    assert {label for _, label, _ in naive.supports} != set(range(4)), "a class begins without support"
    for x in stream(8):
        naive.add(net[:-1](x).detach())
    counts = [sum(label == c for _, label, _ in naive.supports) for c in range(4)]
    assert max(counts) == 3
    assert min(counts) < 3
    assert any(id(support[0]) not in rows for support in naive.supports)


def test_the_bank_holds_the_surest():
    net = small_net()
    adapted = acclimate.adapt(net, T3A(filter_size=4))
    z = torch.cat([net(x).detach() for x in stream(5)])
    for x in stream(5):
        adapted(x)
    for label, found in enumerate(adapted.state["entropies"]):
        own = entropy(z)[z.argmax(1) == label].sort().values[:4]
        assert torch.allclose(found.sort().values[: len(own)], own, rtol=0, atol=1e-12)


def test_before_the_first_batch_the_answer_is_that_of_the_rows():
    """Frozen from the start: cosine to the head's rows, scaled by the feature; nothing is added."""
    net, x = small_net(), stream(1)[0]
    adapted = acclimate.adapt(net, "t3a")
    with adapted.frozen():
        found = adapted(x)
        assert torch.equal(adapted(x), found)
    assert torch.allclose(found, Naive(net[-1], 100).answer(net[:-1](x).detach()), rtol=0, atol=1e-12)


def test_order_within_a_batch_does_not_matter():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    one, other = (acclimate.adapt(small_net(), T3A(filter_size=2)) for _ in range(2))
    for x in stream(4):
        assert torch.allclose(one(x)[order], other(x[order]), rtol=0, atol=1e-10)


def test_preset_batch_is_bn_and_t3a():
    x = stream(1)[0]
    assert torch.equal(
        acclimate.adapt(small_net(), "t3a:batch")(x), acclimate.adapt(small_net(), "t3a", normalization="batch")(x)
    )
    assert not torch.allclose(acclimate.adapt(small_net(), "t3a:batch")(x), acclimate.adapt(small_net(), "t3a")(x))


def test_a_head_that_is_not_the_last_layer():
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor) -> Tensor:
            z = self.net(x)
            return torch.cat([z, z], 1)

    with pytest.raises(ValueError, match="not the classifier"):
        acclimate.adapt(Doubled(), "t3a")(stream(1)[0])


def test_range():
    with pytest.raises(ValueError, match="filter_size"):
        T3A(filter_size=0)
