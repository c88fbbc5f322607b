"""From a budget to a policy: the mildest savings that fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from acclimate.core.budget import Budget
from acclimate.core.memory import MemoryPolicy
from acclimate.memory.checkpointed import Checkpointed
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

    `budget` in bytes; `demand` of the largest calls that it was made for: rows, bytes, bytes of a row, and whether
    autocast was off; `tried`, in order, the last one chosen.
    """

    budget: int
    demand: tuple[float, ...]
    tried: Sequence[Choice] = field(default_factory=tuple)

    @property
    def samples(self) -> int:
        """The batch it was made for."""
        return int(self.demand[0])

    def covers(self, demand: tuple[float, ...]) -> bool:
        """Whether nothing about a call is larger than what it was made for."""
        return all(new <= old for new, old in zip(demand, self.demand, strict=True))

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


def ladder(weights: Collection[Tensor], blocks: Collection[nn.Module]) -> Iterator[tuple[str, MemoryPolicy]]:
    """Policies for these learning weights and a model of these blocks, with words, from the mildest to the hardest.

    First what changes no gradient, then fewer bits, then, where convolutions or linear layers learn, less of their
    inputs, then fewer layers.
    """
    yield "as PyTorch does", Stock()
    if not weights:
        return
    full = any(weight.ndim > 1 for weight in weights)
    yield "exact savings", ExactSavings()
    if blocks:
        yield "exact savings, and blocks run again in backward", Checkpointed(within="exact")
    yield "8 bits for what backward needs as numbers", QuantizedSavings()
    yield "4 bits", QuantizedSavings(norms=4, inputs=4)
    if blocks:
        yield "4 bits, and blocks run again in backward", Checkpointed(within=QuantizedSavings(norms=4, inputs=4))
    hard = SurgeonSavings(norms=4, values="int8") if full else QuantizedSavings(norms=4, inputs=4, curves=4)
    words = "4 bits, inputs of layers by importance (SURGEON)" if full else "4 bits for curves too"
    yield words, hard
    if full:
        for scale in (0.5, 0.25, 0.1):
            hard = SurgeonSavings(norms=4, curves=4, values="int8", scale=scale)
            words = f"4 bits, inputs by importance, {scale:g} of SURGEON's shares, 4 bits for curves too"
            yield words, hard
    for depth in (0.75, 0.5, 0.25, 0.1):
        yield f"{words}, and only {depth:.0%} of the adapted tensors, the last ones, learn", replace(hard, depth=depth)


def make_plan(
    budget: Budget,
    demand: tuple[float, ...],
    own: tuple[str, MemoryPolicy],
    steps: Iterable[tuple[str, MemoryPolicy]],
    attempt: Callable[[MemoryPolicy], tuple[MemoryPolicy, int]],
) -> Plan:
    """The first policy of `steps` that fits; `own`, the method's or the last plan's, comes first if not PyTorch's.

    `attempt` tries a policy on a call of this demand: it gives the policy to choose and the bytes it takes. A model
    whose blocks cannot run again does without. ValueError if none fits, with the smallest number that would do.
    """
    tried: list[Choice] = []
    for words, policy in (*([] if isinstance(own[1], Stock) else [own]), *steps):
        try:
            chosen, total = attempt(policy)
        except RuntimeError:
            if policy is own[1] or not isinstance(policy, Checkpointed):
                raise
            continue
        tried.append(Choice(policy=chosen, words=words, total=total))
        if tried[-1].total <= budget.bytes:
            return Plan(budget=budget.bytes, demand=demand, tried=tuple(tried))
    least = min(tried, key=lambda choice: choice.total)
    raise ValueError(
        f"nothing fits into {_size(budget.bytes)} for batches of {int(demand[0])}: the least looked at is "
        f"{_size(least.total, up=True)}, with {least.words}. Allow that much, send smaller batches, or "
        "choose a method without a backward pass, such as 'bn'."
    )


def _size(count: int, *, up: bool = False) -> str:
    """Bytes in words; `up` rounds upwards, for what must suffice."""
    unit, name = (1e6, "MB") if count >= 1e5 else (1e3, "kB")
    hundredths = count / unit * 100
    return f"{(math.ceil(hundredths) if up else round(hundredths)) / 100:.2f} {name}"
