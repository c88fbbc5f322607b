"""An adaptation under guard: the source answers a few rows too, and the guard decides about answers and updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from acclimate.core import foreach
from acclimate.core.guard import Guard, Judgement, Look
from acclimate.core.output import Selector, find_logits
from acclimate.core.report import GuardReport
from acclimate.measured import Measured

if TYPE_CHECKING:
    from acclimate.core.inputs import Call
    from acclimate.core.table import Snapshot

__all__ = ["Guarded"]

_TALLY = ("judged", "held", "undone", "forgotten", "recovered")


class Guarded(Measured):
    """The half of `Adapted` that answers to a guard. What no guard asks for is not computed."""

    guard: Guard | None
    _source: list[nn.Module]
    _output: Selector

    def _watch(self, guard: Guard | None, pristine: Mapping[str, Tensor]) -> None:
        """Declare what the guard keeps. An adaptation that cannot answer otherwise than its source needs none."""
        state = self.state
        moves = state.by_batch or bool(state.weights) or bool(state.layers) or not self.method.plain()
        self.guard = guard if moves else None
        self._arbiter: list[nn.Module | None] = []
        self._pristine = pristine
        self._guarding: list[tuple[Guard, dict[str, Tensor]]] = []
        self._good: dict[str, Tensor] = {}
        if self.guard is None:
            return
        self._declare("tally", torch.zeros(len(_TALLY), dtype=torch.float64))
        for number, part in enumerate(self.guard.parts()):
            kept: dict[str, Tensor] = {}
            part.setup(self._keeper_of(f"{part.name}.{number}", kept))
            self._guarding.append((part, kept))
        if self.guard.keeps():
            for name, slot in [(n, s) for n, s in state.table.slots.items() if s.kind in ("weights", "statistics")]:
                initial = (
                    slot.initial if isinstance(slot.initial, Tensor) else torch.full_like(slot.tensor, slot.initial)
                )
                self._good[name] = self._declare(f"good.{name}", initial.detach().clone(), initial)

    def _declare(self, name: str, tensor: Tensor, initial: Tensor | None = None) -> Tensor:
        initial = tensor.clone() if initial is None else initial
        return self.state.table.declare(
            f"guard.{name}", tensor, initial=initial, kind="guard", merge="first", learned=False
        )

    def _keeper_of(self, owner: str, kept: dict[str, Tensor]) -> Callable[[str, Tensor], Tensor]:
        def keep(name: str, initial: Tensor) -> Tensor:
            kept[name] = self._declare(f"{owner}.{name}", initial.to(torch.float64).clone())
            return kept[name]

        return keep

    @property
    def tally(self) -> dict[str, int]:
        """What the guard has done so far: rows `judged` and `held` at the source; steps `undone`; times `forgotten` and
        `recovered`. Empty without a guard."""
        if self.guard is None:
            return {}
        numbers = self.state.table.slots["guard.tally"].tensor.tolist()
        return {name: int(number) for name, number in zip(_TALLY, numbers, strict=True)}

    @torch.no_grad()
    def _judge(self, call: Call, logits: Tensor, *, frozen: bool = False) -> Judgement | None:
        """The guard's view of this batch; what it keeps is as before where answers are frozen."""
        self._told = None
        if self.guard is None or self.state.rehearsing:
            return None
        table = self.state.table
        count, wanted = len(call.x), self.guard.count(len(call.x))
        generator = None if frozen else table.generator("guard")
        if generator is None:
            rows = torch.arange(wanted) * count // wanted
        else:
            rows = torch.randperm(count, generator=generator)[:wanted].sort().values
        look = Look(
            logits.detach(),
            rows,
            source=lambda rows: self._logits_of(self._source[0], call, rows),
            arbiter=self._ask_arbiter(call),
            notes=self.state.notes,
            distance=self._distance,
            batches=self.state.batches,
            generator=generator,
        )
        own = {name: slot.tensor.clone() for name, slot in table.slots.items() if frozen and slot.kind == "guard"}
        found: Judgement | None = None
        for part, kept in self._guarding:
            judged = part.judge(look, kept)
            found = judged if found is None else found.beside(judged)
        assert found is not None
        for name, tensor in own.items():
            table.slots[name].tensor.copy_(tensor)
        self._told = GuardReport(found.hold, found.learn, found.reason, look.forwards, found.signals)
        return found

    def _distance(self) -> float:
        """How far the adapted weights are from the source's, relative to the norm of those."""
        weights, sources = list(self.state.weights.values()), self.state.sources()
        if not weights:
            return 0.0
        return float(foreach.norm(weights, minus=sources) / foreach.norm(sources).clamp_min(1e-12))

    def _logits_of(self, model: nn.Module, call: Call, rows: Tensor) -> Tensor:
        part = call.rows(rows)
        return find_logits(model(*part.args, **part.kwargs), self._output).detach()

    def _ask_arbiter(self, call: Call) -> Callable[[Tensor], Tensor] | None:
        if not self._arbiter:
            from acclimate.guard.arbiter import build_arbiter

            self._arbiter.append(build_arbiter(self._base[0], self._pristine))
        arbiter = self._arbiter[0]
        return None if arbiter is None else lambda rows: self._logits_of(arbiter, call, rows)

    @torch.no_grad()
    def _act(self, found: Judgement, before: Snapshot, rows: int) -> None:
        """Carry out what was decided about the step, within the step."""
        state = self.state
        weights = list(state.weights.values())
        if found.shrink < 1 and weights:
            foreach.lerp(weights, [before.tensors[f"weights.{name}"] for name in state.weights], 1 - found.shrink)
        if found.forget >= 1:
            state.restart()
        elif found.forget > 0:
            self._forget(found.forget)
        if found.recover:
            for name, good in self._good.items():
                state.table.slots[name].tensor.copy_(good)
            for tracked in state.table.optimizers.values():
                tracked.reset()
        if found.good:
            for name, good in self._good.items():
                good.copy_(state.table.slots[name].tensor)
        if not found.learn:
            state.learn_if(torch.tensor(False), f"the guard undid the step: {found.reason}")
        done = (rows, rows * found.hold, not found.learn, found.forget > 0, found.recover)
        state.table.slots["guard.tally"].tensor.add_(torch.tensor([float(n) for n in done], dtype=torch.float64))

    def _forget(self, share: float) -> None:
        """The share of the adapted tensors nearest to the output goes back to the source, with what optimisers keep."""
        state = self.state
        names = [name for name in state.order if name in state.weights] or list(state.weights)
        for name in names[len(names) - round(share * len(names)) :]:
            slots = [state.table.slots[f"weights.{name}"]]
            slots += [state.table.slots[f"method.{twin}.{name}"] for twin in state.twins]
            for slot in slots:
                slot.put(slot.initial)
            for prefix in state.table.optimizers:
                for path, slot in state.table.entries():
                    if path.startswith(f"{prefix}/state/{name}/") and slot.tensor.ndim > 0:
                        slot.tensor.zero_()

    def _copy_arbiter(self, fn: Callable[[Tensor], Tensor]) -> None:
        """On another device the arbiter is built anew when it is next asked."""
        self._arbiter.clear()
        self._pristine = {name: fn(tensor) for name, tensor in self._pristine.items()}

    _told: GuardReport | None = None
