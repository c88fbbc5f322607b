"""An adaptation under guard: the source answers a few rows too, and the guard decides about answers and updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from acclimate.core import foreach
from acclimate.core.demands import measure_step
from acclimate.core.inputs import even_rows
from acclimate.core.layout import to_channels_last
from acclimate.core.output import Selector, find_logits
from acclimate.core.report import GuardReport
from acclimate.measured import Measured

if TYPE_CHECKING:
    from acclimate.core.guard import Guard, Judgement, Keep
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
        state.table.generator("guard")
        self._declare("tally", torch.zeros(len(_TALLY), dtype=torch.float64), host=True)
        for number, part in enumerate(self.guard.parts()):
            kept: dict[str, Tensor] = {}
            part.setup(self._keeper_of(f"{part.name}.{number}", kept))
            self._guarding.append((part, kept))
        if self.guard.keeps():
            learned = [
                (n, s) for n, s in state.table.slots.items() if s.learned and s.kind in ("weights", "statistics")
            ]
            for name, slot in learned:
                initial = (
                    slot.initial if isinstance(slot.initial, Tensor) else torch.full_like(slot.tensor, slot.initial)
                )
                self._good[name] = self._declare(f"good.{name}", initial.detach().clone(), initial)

    def _declare(self, name: str, tensor: Tensor, initial: Tensor | None = None, *, host: bool = False) -> Tensor:
        initial = tensor.clone() if initial is None else initial
        return self.state.table.declare(
            f"guard.{name}", tensor, initial=initial, kind="guard", merge="first", learned=False, host=host
        )

    def _keeper_of(self, owner: str, kept: dict[str, Tensor]) -> Keep:
        def keep(name: str, initial: Tensor, /, *, fixed: bool = False) -> Tensor:
            tensor = initial.detach().to("cpu", torch.float64, copy=True)
            kept[name] = self._declare(f"{owner}.{name}", tensor, tensor if fixed else None, host=True)
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
        """The guard's view of this batch; what it keeps is as before where answers are frozen.

        Answers that are not finite are the source's in any case. Of a step that will be refused guards see the answers
        alone: it moves nothing, and its numbers may be no numbers.
        """
        self._told, self._found = None, None
        if self.guard is None or self.state.rehearsing or logits.shape[1] < 2:
            return None
        flags = [flag.reshape(()) for flag in (logits.isfinite().all(), *(flag for _, flag in self.state.demands))]
        finite, *met = torch.stack(flags).tolist()
        if not finite:
            return None
        from acclimate.core.guard import Judgement, Look

        table, self._classes = self.state.table, logits.shape[1]
        count, wanted = len(call.x), self.guard.count(len(call.x))
        generator = None if frozen else table.generator("guard")
        if generator is None:
            rows = even_rows(count, wanted)
        else:
            rows = torch.randperm(count, generator=generator)[:wanted].sort().values
        look = Look(
            logits.detach(),
            rows,
            source=lambda rows: self._logits_of(self._source[0], call, rows),
            arbiter=lambda: self._ask_arbiter(call),
            notes=self.state.notes if all(met) else {},
            travel=self._travel if all(met) else lambda: (0.0, 0.0, 0.0),
            batches=self.state.batches,
            generator=generator,
        )
        own = [(t, t.clone()) for _, kept in self._guarding for t in kept.values()]
        found, whole = Judgement(good=True), False
        try:
            for part, kept in self._guarding:
                judged = part.judge(look, kept)
                found = found.beside(judged if part.keeps() else replace(judged, good=True))
            whole = True
        finally:
            for tensor, before in own:
                if frozen or not whole or not tensor.isfinite().all():
                    tensor.copy_(before)
        self._told = GuardReport(found.hold, found.learn, found.reason, look.forwards, found.signals)
        return found

    def _travel(self) -> tuple[float, float, float]:
        """How far the weights were from the source's and are now, and how far they went, in norms of the source's."""
        now, sources = list(self.state.weights.values()), self.state.sources()
        if not now:
            return 0.0, 0.0, 0.0
        begun = self._begun("weights")
        parts = [foreach.norm(begun, minus=sources), foreach.norm(now, minus=sources), foreach.norm(now, minus=begun)]
        before, after, length = (torch.stack(parts) / foreach.norm(sources).clamp_min(1e-12)).tolist()
        return before, after, length

    def _begun(self, prefix: str) -> list[Tensor]:
        """Where the step began: the weights before it, or the source's where it began by forgetting."""
        if self.state.restarted or self._shadow is None:
            return self.state.sources()
        return [self._shadow.tensors[f"{prefix}.{name}"] for name in self.state.weights]

    def _logits_of(self, model: nn.Module, call: Call, rows: Tensor) -> Tensor:
        found = self._asked_for(model, call.rows(rows))
        if len(found) == len(rows) and found.shape[1] == self._classes:
            return found
        return self._asked_for(model, call)[rows.to(found.device)]  # an argument only happened to have a row for each

    def _asked_for(self, model: nn.Module, call: Call) -> Tensor:
        if self.state.channels_last:
            call = call.with_input(to_channels_last(call.x))
        return find_logits(model(*call.args, **call.kwargs), self._output).detach()

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
        if state.weights and (found.forget > 0 or found.recover):
            measure_step(state, before)
        if found.shrink < 1 and state.weights:
            sets = {"weights": list(state.weights.values())}
            sets |= {f"method.{twin}": list(tensors.values()) for twin, tensors in state.twins.items()}
            for prefix, now in sets.items():
                foreach.lerp(now, self._begun(prefix), 1 - found.shrink)
        self._found = found
        self._go_back(restarting=found.forget >= 1)
        if not found.learn:
            state.learn_if(torch.tensor(False), f"the guard undid the step: {found.reason}")
        done = (rows, rows * found.hold, not found.learn, found.forget > 0, found.recover and found.forget < 1)
        state.table.slots["guard.tally"].tensor.add_(torch.tensor([float(n) for n in done], dtype=torch.float64))

    @torch.no_grad()
    def _go_back(self, *, restarting: bool) -> None:
        """Forget or recover as was decided; once more where a step that taught nothing has just been undone."""
        found, table = self._found, self.state.table
        if found is not None and found.recover and found.forget < 1:
            for name, good in self._good.items():
                table.slots[name].tensor.copy_(good)
            for tracked in table.optimizers.values():
                tracked.reset()
        if found is not None and 0 < found.forget < 1:
            self._forget(found.forget)
        if restarting:
            self.state.restart()

    @torch.no_grad()
    def _keep_good(self) -> None:
        """When a step has come to stay: keep a copy if it was judged good; nothing is good once all is forgotten."""
        if self._found is None or not (self._found.good or self._found.forget >= 1):
            return
        for name, good in self._good.items():
            good.copy_(self.state.table.slots[name].tensor)

    def _forget(self, share: float) -> None:
        """The share of the adapted tensors nearest to the output goes back to the source, with what optimisers keep."""
        state, table = self.state, self.state.table
        names = list(state.weights)
        if self._policy.by_depth:  # else what is known of the order depends on whether memory was ever measured
            names = [name for name in state.order if name in state.weights] or names
        for name in names[-max(1, round(share * len(names))) :] if names else ():
            for prefix in ("weights", *(f"method.{twin}" for twin in state.twins)):
                slot = table.slots[f"{prefix}.{name}"]
                slot.put(slot.initial)
            for prefix in table.optimizers:
                for path, slot in table.entries():
                    if path.startswith(f"{prefix}/state/{name}/") and slot.tensor.ndim > 0:
                        slot.tensor.zero_()

    def _copy_arbiter(self, fn: Callable[[Tensor], Tensor]) -> None:
        """On another device the arbiter is built anew when it is next asked."""
        self._arbiter.clear()
        self._pristine = {name: fn(tensor) for name, tensor in self._pristine.items()}

    @torch.no_grad()
    def _refuse(self, before: Snapshot) -> None:
        """Undo a refused step; what the guard has seen of its answers stays, and is carried out."""
        table = self.state.table
        if self._found is None:
            table.restore(before)
            return
        own = [table.slots["guard.tally"].tensor, *(kept for _, part in self._guarding for kept in part.values())]
        seen = [(tensor, tensor.clone()) for tensor in own]
        drawn = table.generators["guard"].get_state()
        table.restore(before)
        for tensor, value in seen:
            tensor.copy_(value)
        table.generators["guard"].set_state(drawn)
        self._go_back(restarting=self._found.forget >= 1)

    _classes = 0
    _told: GuardReport | None = None
    _found: Judgement | None = None
