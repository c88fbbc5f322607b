"""The bank against plain lists, sample for sample, and what holds whatever is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.anatomy import everything
from acclimate.core.method import Card, Cost, Method
from acclimate.core.state import State
from acclimate.parts.bank import CSTU, Admission, Shelf, collect, declare_bank, fifo, pbrs, soft_entropy
from parts.memories import Balanced, Timely, uncertainty


@dataclass(frozen=True, kw_only=True)
class Keep(Method):
    """Answers, keeps, and remembers what it was handed."""

    name: ClassVar[str] = "keep"
    card: ClassVar[Card] = Card(summary="a test", paper="none", fails_when="always")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    admit: Admission = fifo
    capacity: int = 16
    every: int = 64
    seen: list[tuple[list[float], list[int]]] = field(default_factory=list, metadata={"recorded": False})

    def setup(self, state: State) -> None:
        state.adapt(everything, "weights")
        declare_bank(state, self.capacity, state.classes())

    def step(self, state: State, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits = state.forward(x)
        for kept, ages in collect(state, x, logits, self.admit, every=self.every):
            self.seen.append((kept[:, -1].tolist(), ages.tolist()))
        return logits

    def cost(self) -> Cost:
        return Cost(forwards=1, backwards=0)


class Echo(nn.Module):
    """Its logits are the input's columns but the last, which numbers the samples."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(classes + 1, classes, bias=False)
        self.head.weight.data = torch.eye(classes + 1)[:classes]

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.head(x)


def samples(count: int, classes: int, seed: int = 0) -> Tensor:
    """Few patterns of very different sureness, the early classes more often, correlated in time."""
    generator = torch.Generator().manual_seed(seed)
    peaks = torch.eye(classes).repeat(3, 1) * torch.tensor([0.5, 2.0, 40.0]).repeat_interleave(classes)[:, None]
    share = torch.rand(3 * classes, generator=generator) ** 3
    drawn = torch.multinomial(share, count, replacement=True, generator=generator)
    runs = torch.arange(count) // 7 % 3 == 0
    drawn[runs] = drawn[runs] // classes * classes + (torch.arange(count)[runs] // 21) % classes
    return torch.cat([peaks[drawn], torch.arange(count)[:, None].float()], 1)


def kept(adapted: acclimate.Adapted) -> list[float]:
    filled = adapted.state["bank.labels"] >= 0
    return adapted.state["bank.samples"][filled][:, -1].tolist()


def twin_generator(adapted: acclimate.Adapted) -> torch.Generator:
    return torch.Generator().set_state(adapted.state.generator("bank").get_state())


@pytest.mark.parametrize(("capacity", "classes"), [(16, 5), (7, 3), (4, 9), (64, 10)])
def test_pbrs_equals_lists(capacity, classes):
    x = samples(3000, classes)
    adapted = acclimate.adapt(Echo(classes), Keep(admit=pbrs, capacity=capacity))
    oracle = Balanced(capacity, classes, twin_generator(adapted))
    for batch in x.split(20):
        adapted(batch)
        for row in batch:
            oracle.add(float(row[-1]), int(row[:-1].argmax()), None)
        assert sorted(kept(adapted)) == sorted(oracle.items())
    assert adapted.state["bank.seen"].tolist() == oracle.seen
    sizes = Counter(adapted.state["bank.labels"].tolist())
    assert {c: sizes.get(c, 0) for c in range(classes)} == {c: len(v) for c, v in oracle.lists.items()}


@pytest.mark.parametrize(("capacity", "classes"), [(16, 5), (8, 3), (4, 9), (64, 10), (64, 100)])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
def test_cstu_equals_lists(capacity, classes, weights):
    """Both are given the same doubts, to the bit: equals among them, which occur, are then equals to both."""
    x = samples(3000, classes, seed=1)
    policy = CSTU(timeliness=weights[0], uncertainty=weights[1])
    adapted = acclimate.adapt(Echo(classes), Keep(admit=policy, capacity=capacity))
    oracle = Timely(capacity, classes, *weights)
    for batch in x.split(20):
        adapted(batch)
        for row, doubt in zip(batch, soft_entropy(batch[:, :-1]).tolist(), strict=True):
            oracle.add(float(row[-1]), int(row[:-1].argmax()), doubt)
        found = dict(zip(kept(adapted), adapted.state["bank.ages"].tolist(), strict=False))
        assert found == dict(zip(oracle.items(), oracle.ages(), strict=True))


def test_cstu_keeps_one_of_a_class_at_most_when_classes_outnumber_places():
    adapted = acclimate.adapt(Echo(9), Keep(admit=CSTU(), capacity=4))
    for batch in samples(200, 9).split(10):
        adapted(batch)
        labels = [label for label in adapted.state["bank.labels"].tolist() if label >= 0]
        assert len(labels) == len(set(labels))


def test_fifo_keeps_the_newest():
    adapted = acclimate.adapt(Echo(3), Keep(admit=fifo, capacity=10))
    for batch in samples(100, 3).split(7):
        adapted(batch)
        last = int(batch[-1, -1])
        assert sorted(kept(adapted)) == list(range(max(0, last - 9), last + 1))


def test_the_reservoir_is_fair_to_early_and_late_samples():
    """Of 40 samples of one class, each stands in a bank of 8 with probability 1/5 in the end."""
    counts, generator = torch.zeros(40), torch.Generator().manual_seed(0)
    rounds = 1500
    for _ in range(rounds):
        shelf, ids = Shelf([-1] * 8, [0] * 8, [0.0] * 8, [0]), [-1] * 8
        for number in range(40):
            shelf.seen[0] += 1
            place = pbrs(shelf, 0, 0.0, generator)
            if place is not None:
                shelf.put(place, 0, 0.0)
                ids[place] = number
            shelf.grow_older()
        counts[ids] += 1
    spread = (0.2 * 0.8 / rounds) ** 0.5
    assert (counts / rounds - 0.2).abs().max() < 4 * spread


@pytest.mark.parametrize("policy", [pbrs, CSTU(), fifo], ids=["pbrs", "cstu", "fifo"])
def test_the_cut_into_batches_does_not_matter(policy):
    """The same samples in batches of 1, 8 and 200 leave the same bank, handed out at the same moments."""
    x, books = samples(400, 5), []
    for size in (1, 8, 200):
        method = Keep(admit=policy, capacity=16, every=48)
        adapted = acclimate.adapt(Echo(5), method)
        for batch in x.split(size):
            adapted(batch)
        assert len(method.seen) == 400 // 48
        state = {name: adapted.state[f"bank.{name}"] for name in ("samples", "labels", "ages", "doubts", "seen")}
        books.append((state, method.seen))
    for state, seen in books[1:]:
        assert seen == books[0][1]
        assert all(torch.equal(state[name], books[0][0][name]) for name in state)


def test_what_stands_beside_the_samples_is_theirs():
    x = samples(300, 5)
    adapted = acclimate.adapt(Echo(5), Keep(admit=pbrs, capacity=16))
    for batch in x.split(30):
        adapted(batch)
    for number, label, age, doubt in zip(
        kept(adapted), *(adapted.state[f"bank.{name}"].tolist() for name in ("labels", "ages", "doubts")), strict=True
    ):
        row = x[int(number)]
        assert torch.equal(row, adapted.state["bank.samples"][kept(adapted).index(number)])
        assert (label, age) == (int(row[:-1].argmax()), 300 - int(number))
        assert doubt == pytest.approx(uncertainty(row[:-1]), abs=1e-6)


def test_soft_entropy():
    z = torch.tensor([[2.0, -1.0, 0.5], [60.0, 0.0, 0.0]], dtype=torch.float64)
    assert soft_entropy(z).tolist() == pytest.approx([uncertainty(row) for row in z], abs=1e-12)
    assert soft_entropy(z.half()).dtype == torch.float32


def test_another_shape_is_refused_until_a_reset():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    adapted = acclimate.adapt(net, Keep())
    adapted(torch.rand(4, 3, 8, 8))
    before = adapted.state["bank.samples"].clone()
    with pytest.raises(ValueError, match=r"\[3, 8, 8\], found \[3, 12, 12\].*reset\(\)"):
        adapted(torch.rand(4, 3, 12, 12))
    assert torch.equal(adapted.state["bank.samples"], before)
    adapted.reset()
    adapted(torch.rand(4, 3, 12, 12))
    assert adapted.state["bank.samples"].shape == (16, 3, 12, 12)


def test_further_tensors_with_a_row_each_are_refused():
    adapted = acclimate.adapt(Echo(5), Keep())
    with pytest.raises(ValueError, match="further tensors of one row"):
        adapted(samples(8, 5), weight=torch.ones(8))
    adapted(samples(8, 5), weight=torch.ones(3))
    assert len(kept(adapted)) == 8


def test_dense_answers_are_refused():
    adapted = acclimate.adapt(nn.Conv2d(3, 4, 3), Keep())
    with pytest.raises(ValueError, match=r"one answer each: found logits \[2, 4, 6, 6\]"):
        adapted(torch.rand(2, 3, 8, 8))
