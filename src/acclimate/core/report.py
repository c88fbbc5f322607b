"""The small record that each step leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["GuardReport", "StepReport", "Verdict"]


@dataclass(slots=True)
class Verdict:
    """Conditions of one step as flags on the device; read once, when somebody asks or the next step begins.

    A broken demand undoes the step without a trace; an unmet wish only means that nothing was learned.
    """

    demands: Sequence[tuple[str, Tensor]] = ()
    wishes: Sequence[tuple[str, Tensor]] = ()
    _flags: list[bool] | None = None

    def flags(self) -> list[bool]:
        if self._flags is None:
            tensors = [flag.reshape(()) for _, flag in (*self.demands, *self.wishes)]
            self._flags = torch.stack(tensors).tolist() if tensors else []
            self.demands = [(reason, torch.empty(0)) for reason, _ in self.demands]
            self.wishes = [(reason, torch.empty(0)) for reason, _ in self.wishes]
        return self._flags

    def holds(self) -> Tensor:
        """One flag on the device: the step is kept and something was learned."""
        return torch.stack([flag.reshape(()) for _, flag in (*self.demands, *self.wishes)]).all()

    @property
    def refused(self) -> str | None:
        """The first broken demand."""
        broken = [r for (r, _), ok in zip(self.demands, self.flags(), strict=False) if not ok]
        return broken[0] if broken else None

    @property
    def idle(self) -> str | None:
        """The first unmet wish."""
        flags = self.flags()[len(self.demands) :]
        unmet = [reason for (reason, _), ok in zip(self.wishes, flags, strict=True) if not ok]
        return unmet[0] if unmet else None


@dataclass(slots=True)
class GuardReport:
    """What the guard made of the batch: it held the answers at the source, or undid the step, or neither, and why."""

    held: bool
    learns: bool
    reason: str
    forwards: float
    """Forwards of the batch that it took beside the step's own."""
    signals: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(slots=True)
class StepReport:
    """What the last step did. Reading a number that lives on a device waits for that device; nothing else does."""

    samples: int
    """Rows in the batch."""
    held: int = 0
    """Rows answered by the source model."""
    forwards: float = 0.0
    """Forward passes over the batch."""
    backwards: float = 0.0
    milliseconds: float = 0.0
    """Wall time of the call; on an accelerator, of queueing it."""
    state_bytes: int = 0
    """Bytes of declared state after the step."""
    skipped: str | None = None
    """Why no step was tried, if none was."""
    restarted: bool = False
    """Whether the method forgot what it had learned before this batch."""
    guard: GuardReport | None = None
    """What the guard decided; None without one."""
    verdict: Verdict = field(default_factory=Verdict)
    notes: dict[str, Tensor | float] = field(default_factory=dict[str, Tensor | float])
    details: dict[str, tuple[tuple[str, ...], Tensor]] = field(
        default_factory=dict[str, tuple[tuple[str, ...], Tensor]]
    )

    @property
    def reason(self) -> str | None:
        """Why the model did not learn from this batch; None if it did."""
        return self.skipped or self.verdict.refused or self.verdict.idle

    @property
    def updated(self) -> bool:
        """Whether the step was kept."""
        return self.reason is None

    @property
    def values(self) -> dict[str, float]:
        """All numbers the method and the core left: entropy, loss, selected, distance, ..."""
        return {name: float(value) for name, value in self.notes.items()}

    @property
    def entropy(self) -> float | None:
        """Mean entropy of the answers, nats."""
        return self._value("entropy")

    @property
    def loss(self) -> float | None:
        return self._value("loss")

    @property
    def selected(self) -> float | None:
        """How many rows (or tensors, as the method's page says) were chosen to learn from."""
        return self._value("selected")

    @property
    def distance(self) -> float | None:
        """Distance of the adapted weights from the source's, relative to the source's norm."""
        return self._value("distance")

    def detail(self, name: str) -> dict[str, float]:
        """One number per adapted tensor, such as "importance"; empty if the method leaves none of that name."""
        names, values = self.details.get(name, ((), torch.empty(0)))
        return dict(zip(names, values.tolist(), strict=True))

    def _value(self, name: str) -> float | None:
        return float(self.notes[name]) if name in self.notes else None
