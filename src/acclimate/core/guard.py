"""The contract of guards: what they may look at in one batch, and what they may decide."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from acclimate.core.config import Configured, between, positive, whole
from acclimate.core.registry import Registry

__all__ = ["Chain", "Guard", "Judgement", "Keep", "Look", "build_guard", "guards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What becomes of one batch's answer and of what was learned from it.

    `hold`: the source answers this batch. `learn`: what the step learned is kept; otherwise the step is undone, and
    only counters and generators go on. `shrink`, in (0, 1]: the share of the step that is kept. `forget`, in [0, 1]:
    the share of the adapted tensors, those nearest to the output first, that go back to the source; 1 forgets
    everything, as a method's own restart does. `recover`: back to the last state that was judged good. `good`: this
    state is good; a guard that asks for either sets `keeps_good`. `reason`, of what is not as usual; `signals`, for the
    record.
    """

    hold: bool = False
    learn: bool = True
    shrink: float = 1.0
    forget: float = 0.0
    recover: bool = False
    good: bool = False
    reason: str = ""
    signals: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        if not (0 < self.shrink <= 1 and 0 <= self.forget <= 1):
            raise ValueError(
                f"a guard decided to keep the share {self.shrink!r} of a step and to forget {self.forget!r}; expected "
                "above 0 and at most 1, and 0 to 1. Mend its judge()."
            )

    def beside(self, other: Judgement) -> Judgement:
        """Both together: the more careful of each."""
        return Judgement(
            hold=self.hold or other.hold,
            learn=self.learn and other.learn,
            shrink=min(self.shrink, other.shrink),
            forget=max(self.forget, other.forget),
            recover=self.recover or other.recover,
            good=self.good and other.good,
            reason="; ".join(reason for reason in (self.reason, other.reason) if reason),
            signals=self.signals | other.signals,
        )


class Look:
    """One batch as a guard sees it. What costs a forward is computed when it is asked for, once.

    `logits`: the adapted model's, `[N, C, ...]`, from before the update; `rows`: which of them the source answers too,
    `[n]`; `batches`: how many came before; `generator`: private randomness, None while answers are frozen.
    """

    def __init__(
        self,
        logits: Tensor,
        rows: Tensor,
        *,
        source: Callable[[Tensor], Tensor],
        arbiter: Callable[[], Callable[[Tensor], Tensor] | None],
        notes: Mapping[str, Tensor | float],
        travel: Callable[[], tuple[float, float, float]],
        batches: int,
        generator: torch.Generator | None,
    ) -> None:
        self.logits, self.rows = logits, rows
        self._notes, self._travel = notes, travel
        self._travelled: tuple[float, float, float] | None = None
        self.batches, self.generator = batches, generator
        self.forwards = 0.0
        self._ask: dict[str, Callable[[Tensor], Tensor] | None] = {"source": source}
        self._find_arbiter = arbiter
        self._known: dict[str, Tensor] = {}

    @property
    def loss(self) -> float | None:
        """The step's loss, where the method says one."""
        return float(self._notes["loss"]) if "loss" in self._notes else None

    @property
    def travel(self) -> tuple[float, float, float]:
        """How far the adapted weights were from the source's before the step and are after it, and how far it went.

        All three relative to the norm of the source's weights; zeros where no weights adapt.
        """
        if self._travelled is None:
            self._travelled = self._travel()
        return self._travelled

    @property
    def distance(self) -> float:
        """Of the adapted weights from the source's, relative to the norm of those, after the step."""
        return self.travel[1]

    @property
    def frozen(self) -> bool:
        """Whether nothing is learned: only `hold` of what is decided counts, and what is kept stays as it was."""
        return self.generator is None

    @property
    def adapted(self) -> Tensor:
        """The adapted model's logits of `rows`."""
        return self.logits[self.rows.to(self.logits.device)]

    @property
    def source(self) -> Tensor:
        """The source model's logits of `rows`: `n / N` of a forward."""
        return self._asked("source")

    @property
    def has_arbiter(self) -> bool:
        if "arbiter" not in self._ask:
            self._ask["arbiter"] = self._find_arbiter()
        return self._ask["arbiter"] is not None

    @property
    def arbiter(self) -> Tensor:
        """Logits of `rows` from the source's weights over the stream's shallow statistics: `n / N` of a forward.

        Only for models with batch norms, see `has_arbiter`. It has learned nothing, so it cannot have collapsed, and
        deep statistics, which follow the classes, are the source's, so it stands clusters of labels.
        """
        return self._asked("arbiter")

    def _asked(self, who: str) -> Tensor:
        ask = self._ask[who] if who == "source" or self.has_arbiter else None
        if ask is None:
            raise ValueError("this model has no batch norms, so there is no arbiter. Ask has_arbiter first.")
        if who not in self._known:
            self._known[who] = ask(self.rows)
            self.forwards += len(self.rows) / len(self.logits)
        return self._known[who]


class Keep(Protocol):
    """Declares a guard's tensor, float64 on the CPU: `keep(name, initial)` gives it; it is changed in place only.

    One that is `fixed` is never changed: it is what the guard was given, which a file then holds for it.
    """

    def __call__(self, name: str, initial: Tensor, /, *, fixed: bool = False) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Guard(Configured, abc.ABC):
    """Watches an adapting model and decides about its answers and updates. Frozen settings, like a method.

    Arguments common to all: `share`, of each batch that the source answers too, in (0, 1]; `least` >= 1, rows that it
    answers at least, or the batch where that is smaller.

    What changes over batches is declared in `setup` and handed to `judge` as `kept`, by name. It survives restarts of
    the method, steps that learn nothing or are refused, saving and loading; numbers that are not finite are put back.
    `judge` must not change anything else. `keeps_good`: whether a copy of the last good state is kept (the bytes of
    weights and statistics again).
    """

    keeps_good: ClassVar[bool] = False
    share: float = 0.1
    least: int = 4

    def __post_init__(self) -> None:
        positive(share=self.share)
        between(0, 1, share=self.share)
        whole(1, least=self.least)
        self.check()

    def check(self) -> None:
        """ValueError for settings out of range."""

    def setup(self, keep: Keep) -> None:
        """Declare what is kept over batches."""

    @abc.abstractmethod
    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        """What becomes of this batch."""

    def count(self, batch: int) -> int:
        """How many of a batch's rows the source answers too."""
        return min(batch, max(self.least, math.ceil(self.share * batch)))

    def parts(self) -> Sequence[Guard]:
        """The guards that judge, one after the other."""
        return (self,)

    def keeps(self) -> bool:
        """Whether a copy of the last good state is kept."""
        return self.keeps_good


guards: Registry[Guard] = Registry("guard", "acclimate.guard", Guard)


@guards.register("chain")
@dataclass(frozen=True, kw_only=True)
class Chain(Guard):
    """Several guards over one model; of each decision the most careful counts.

    Argument: `members`, names or instances, or saved settings. They share the rows that the source answers.

    Example: `acclimate.adapt(net, "tent", guard="default+sar")`.
    """

    members: tuple[Guard, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.members, str):
            raise ValueError(f"members are a tuple of guards, found {self.members!r}. Or join names: 'default+sar'.")
        built = tuple(guards.build(member) for member in self.members)
        if not built or any(isinstance(member, Chain) for member in built):
            raise ValueError(f"a chain is of one or more guards that are no chains, found {self.members!r}.")
        object.__setattr__(self, "members", built)
        super().__post_init__()

    def judge(self, look: Look, kept: dict[str, Tensor]) -> Judgement:
        raise NotImplementedError("its members judge")

    def count(self, batch: int) -> int:
        return max(member.count(batch) for member in self.members)

    def parts(self) -> Sequence[Guard]:
        return self.members

    def keeps(self) -> bool:
        return any(member.keeps() for member in self.members)


def build_guard(spec: str | Guard | Mapping[str, object] | None) -> Guard | None:
    """A guard from a name, `name:preset`, names joined by `+`, saved settings or an instance; "none" is None."""
    if spec is None or spec == "none":
        return None
    if isinstance(spec, str) and "+" in spec:
        return Chain(members=tuple(guards.build(name) for name in spec.split("+")))
    if isinstance(spec, bool):
        raise ValueError(
            f"found {spec!r} for a guard, expected a name such as 'default', an instance, or None for none."
        )
    return guards.build(spec)
