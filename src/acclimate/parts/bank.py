"""A bank of samples from the stream: which are kept is decided sample by sample, by one of three policies."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.core.state import State

__all__ = ["CSTU", "Admission", "Shelf", "collect", "declare_bank", "fifo", "pbrs", "soft_entropy"]

_EMPTY = -1


@dataclass
class Shelf:
    """What stands in the bank, on the host: class, age in samples and doubt of each place; filled from the front.

    `seen` counts, for each class, the samples that have come, kept or not.
    """

    labels: list[int]
    ages: list[int]
    doubts: list[float]
    seen: list[int]

    @property
    def capacity(self) -> int:
        return len(self.labels)

    @property
    def filled(self) -> int:
        return self.capacity - self.labels.count(_EMPTY)

    def of(self, *labels: int) -> list[int]:
        """Places of these classes, one class after the other, the oldest sample of each first."""
        chosen = set(labels)
        return sorted(
            (place for place, label in enumerate(self.labels) if label in chosen),
            key=lambda place: (self.labels[place], -self.ages[place]),
        )

    def largest(self) -> list[int]:
        """Classes that hold the most places, in order."""
        counts = Counter(self.labels)
        del counts[_EMPTY]
        most = max(counts.values())
        return sorted(label for label, count in counts.items() if count == most)

    def put(self, place: int, label: int, doubt: float) -> None:
        self.labels[place], self.doubts[place], self.ages[place] = label, doubt, 0

    def grow_older(self) -> None:
        self.ages = [age + (label != _EMPTY) for age, label in zip(self.ages, self.labels, strict=True)]


Admission = Callable[[Shelf, int, float, torch.Generator], int | None]
"""Whether a sample of this class and doubt comes in: the place it takes, or None."""


def fifo(shelf: Shelf, label: int, doubt: float, generator: torch.Generator) -> int:
    """The newest samples: each takes the place of the oldest."""
    return shelf.filled if shelf.filled < shelf.capacity else shelf.ages.index(max(shelf.ages))


def pbrs(shelf: Shelf, label: int, doubt: float, generator: torch.Generator) -> int | None:
    """Prediction-balanced reservoir sampling (NOTE).

    In a full bank a sample takes the place of a random one of a largest class; if its own class is a largest, of
    one of that class, with probability (places of the class) / (samples seen of the class).
    """

    def draw(items: list[int]) -> int:
        return items[int(torch.randint(len(items), (), generator=generator))]

    if shelf.filled < shelf.capacity:
        return shelf.filled
    largest = shelf.largest()
    if label not in largest:
        return draw(shelf.of(draw(largest)))
    own = shelf.of(label)
    return draw(own) if float(torch.rand((), generator=generator)) < len(own) / shelf.seen[label] else None


@dataclass(frozen=True, kw_only=True)
class CSTU:
    """Category-balanced sampling with timeliness and uncertainty (RoTTA).

    Each class has `capacity / classes` places. A sample competes with those of its class if that is full, else, in
    a full bank, with those of the largest classes: it takes the place of the worst if that is worse than
    itself, by `timeliness / (1 + exp(-age / capacity)) + uncertainty * doubt / ln classes`.
    """

    timeliness: float = 1.0
    uncertainty: float = 1.0

    def __call__(self, shelf: Shelf, label: int, doubt: float, generator: torch.Generator) -> int | None:
        classes, capacity = len(shelf.seen), shelf.capacity
        full = shelf.labels.count(label) >= capacity / classes
        price = self.uncertainty / math.log(classes)

        def badness(age: int, doubt: float) -> float:
            return self.timeliness / (1 + math.exp(-age / capacity)) + price * doubt

        if not full and shelf.filled < capacity:
            return shelf.filled
        places = shelf.of(label) if full else shelf.of(*shelf.largest())
        scores = [badness(shelf.ages[place], shelf.doubts[place]) for place in places]
        worst = max(range(len(places)), key=lambda n: (scores[n], n))  # of equals the last
        return places[worst] if scores[worst] > badness(0, doubt) else None


def soft_entropy(logits: Tensor) -> Tensor:
    """Entropy as the codes of NOTE and RoTTA have it, `-sum_c p_c ln(p_c + 1e-6)`: `[N, C] -> [N]`."""
    p = logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return -(p * (p + 1e-6).log()).sum(1)


def declare_bank(state: State, capacity: int, classes: int) -> None:
    """Keep up to `capacity` samples. In units of `Cost.memory`: "sample" and 5 numbers for each, 2 for each class."""
    device = next(iter(state.weights.values())).device
    state.expect("bank.samples", length=capacity)
    for name, size, initial in (("labels", capacity, _EMPTY), ("ages", capacity, 0), ("seen", classes, 0)):
        numbers = torch.full((size,), initial, dtype=torch.int64, device=device)
        state.declare(f"bank.{name}", numbers, initial=initial, kind="memory", merge="first")
    doubts = torch.zeros(capacity, dtype=torch.float32, device=device)
    state.declare("bank.doubts", doubts, initial=0.0, kind="memory", merge="first")
    state.generator("bank")


def collect(
    state: State, x: Tensor, logits: Tensor, admit: Admission, *, every: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Offer the rows of a batch to the bank one after another, classes and doubts by their answers.

    Gives the samples kept `[n, ...]` and their ages `[n]` each time `every` samples have come since the reset; once,
    and as many as the bank holds, while a step's memory is measured. One host read. ValueError for answers that are
    not one for each row, for rows of another shape than those kept, and for calls with further inputs for each row.
    """
    _check(state, x, logits)
    if state.rehearsing:
        places = torch.arange(len(state["bank.ages"]), device=x.device)
        yield x.detach()[places % len(x)], state["bank.ages"]
        return
    shelf, labels, doubts = _read(state, logits)
    came, fresh, generator = sum(shelf.seen), dict[int, int](), state.generator("bank")
    for row, (label, doubt) in enumerate(zip(labels, doubts, strict=True)):
        shelf.seen[label] += 1
        came += 1
        place = admit(shelf, label, doubt, generator)
        if place is not None:
            shelf.put(place, label, doubt)
            fresh[place] = row
        shelf.grow_older()
        if came % every == 0:
            _write(state, x, shelf, fresh)
            fresh = dict[int, int]()
            yield state["bank.samples"][: shelf.filled], state["bank.ages"][: shelf.filled]
    _write(state, x, shelf, fresh)
    state.note(kept=float(shelf.filled))


def _check(state: State, x: Tensor, logits: Tensor) -> None:
    if logits.ndim != 2:
        raise ValueError(f"samples are kept by one answer each: found logits {list(logits.shape)}, expected [N, C].")
    if not state.alone:
        raise ValueError(
            "the model was called with further tensors of one row for each sample, which a bank of samples does "
            "not keep. Put them into the input, or choose a method without a bank."
        )
    if "bank.samples" not in state:
        state.fulfil("bank.samples", x.new_zeros(len(state["bank.labels"]), *x.shape[1:]))
    kept, found = list(state["bank.samples"].shape[1:]), list(x.shape[1:])
    if kept != found:
        raise ValueError(
            f"the bank holds samples of shape {kept}, found {found}: a stream keeps one shape. Resize the input, or "
            "call reset() before a stream of another shape."
        )


@torch.no_grad()
def _read(state: State, logits: Tensor) -> tuple[Shelf, list[int], list[float]]:
    """The shelf, and classes and doubts of the rows, in one transfer."""
    bits = torch.cat([state["bank.doubts"], soft_entropy(logits).float()]).view(torch.int32)
    parts = [state["bank.labels"], state["bank.ages"], state["bank.seen"], logits.argmax(1), bits.long()]
    whole = torch.cat(parts).cpu().split([len(part) for part in parts])
    labels, ages, seen, answers = (part.tolist() for part in whole[:4])
    doubts: list[float] = whole[4].int().view(torch.float32).tolist()
    return Shelf(labels, ages, doubts[: len(labels)], seen), answers, doubts[len(labels) :]


@torch.no_grad()
def _write(state: State, x: Tensor, shelf: Shelf, fresh: dict[int, int]) -> None:
    """Write back the shelf, and of each place's new samples the last."""
    for name in ("labels", "ages", "seen", "doubts"):
        target = state[f"bank.{name}"]
        target.copy_(torch.tensor(getattr(shelf, name), dtype=target.dtype))
    samples = state["bank.samples"]
    places, rows = (torch.tensor(list(each), dtype=torch.int64, device=x.device) for each in (fresh, fresh.values()))
    samples.index_copy_(0, places, x.detach()[rows].to(samples.dtype))
