"""From a budget to a policy: the mildest savings that fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from acclimate.core.budget import Budget
from acclimate.core.memory import MemoryPolicy
from acclimate.memory.exact import ExactSavings
from acclimate.memory.quantized import QuantizedSavings
from acclimate.memory.stock import Stock
from acclimate.memory.surgeon import SurgeonSavings

__all__ = ["Choice", "Plan", "ladder", "make_plan"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A policy that was looked at: what it does in words, and the bytes it would take in all."""

    policy: MemoryPolicy
    words: str
    total: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was chosen for a budget, and what was looked at before.

    `budget` in bytes; `samples`, the batch it was made for; `tried`, in order, the last one chosen.
    """

    budget: int
    samples: int
    tried: Sequence[Choice] = field(default_factory=tuple)

    @property
    def chosen(self) -> Choice:
        return self.tried[-1]

    def __str__(self) -> str:
        lines = [
            f"{'->' if choice is self.chosen else '  '} {_size(choice.total):>12}  {choice.words}"
            for choice in self.tried
        ]
        head = f"budget {_size(self.budget)} for batches of {self.samples}; state, rollback and backward together"
        return "\n".join([head, *lines])


def ladder(weights: Collection[Tensor]) -> Iterator[tuple[str, MemoryPolicy]]:
    """Policies for these learning weights, with words, from the mildest to the hardest.

    First what changes no gradient, then fewer bits, then, where convolutions or linear layers learn, less of their
    inputs, then fewer layers.
    """
    yield "as PyTorch does", Stock()
    if not weights:
        return
    full = any(weight.ndim > 1 for weight in weights)
    yield "exact savings", ExactSavings()
    yield "8 bits for what backward needs as numbers", QuantizedSavings()
    yield "4 bits", QuantizedSavings(norms=4, inputs=4)
    hard = SurgeonSavings(norms=4, values="int8") if full else QuantizedSavings(norms=4, inputs=4, curves=4)
    words = "4 bits, inputs of layers by importance (SURGEON)" if full else "4 bits for curves too"
    yield words, hard
    if full:
        for scale in (0.5, 0.25, 0.1):
            hard, words = replace(hard, scale=scale), f"4 bits, inputs by importance, {scale:g} of SURGEON's shares"
            yield words, hard
    for depth in (0.75, 0.5, 0.25, 0.1):
        yield f"{words}, and only {depth:.0%} of the adapted tensors, the last ones, learn", replace(hard, depth=depth)


def make_plan(
    budget: Budget,
    samples: int,
    own: MemoryPolicy,
    steps: Iterable[tuple[str, MemoryPolicy]],
    attempt: Callable[[MemoryPolicy], tuple[MemoryPolicy, int]],
) -> Plan:
    """The first policy of `steps` that fits; `own`, the method's, comes first if it is not PyTorch's.

    `attempt` tries a policy on a batch of so many samples: it gives the policy to choose and the bytes it takes.
    ValueError if none fits, with the smallest number that would do.
    """
    tried: list[Choice] = []
    first = [] if isinstance(own, Stock) else [(f"as asked for: {own.name}", own)]
    for words, policy in (*first, *steps):
        chosen, total = attempt(policy)
        tried.append(Choice(policy=chosen, words=words, total=total))
        if tried[-1].total <= budget.bytes:
            return Plan(budget=budget.bytes, samples=samples, tried=tuple(tried))
    least = min(tried, key=lambda choice: choice.total)
    raise ValueError(
        f"nothing fits into {_size(budget.bytes)} for batches of {samples}: the least is "
        f"{_size(least.total, up=True)}, with {least.words}. Allow that much, send smaller batches, or "
        "choose a method without a backward pass, such as 'bn'."
    )


def _size(count: int, *, up: bool = False) -> str:
    """Bytes in words; `up` rounds upwards, for what must suffice."""
    unit, name = (1e6, "MB") if count >= 1e5 else (1e3, "kB")
    hundredths = count / unit * 100
    return f"{(math.ceil(hundredths) if up else round(hundredths)) / 100:.2f} {name}"
