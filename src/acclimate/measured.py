"""What an adaptation takes: the memory policy at work, measured, planned for a budget, and told."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from acclimate.core.budget import Budget
from acclimate.core.inputs import Call
from acclimate.core.memory import MemoryPolicy
from acclimate.core.meter import Memory, tensor_bytes

if TYPE_CHECKING:
    from acclimate.core.method import Method
    from acclimate.core.report import StepReport
    from acclimate.core.state import State
    from acclimate.core.table import Snapshot
    from acclimate.memory.keeper import Keeper
    from acclimate.memory.plan import Plan
    from acclimate.memory.report import MemoryReport

__all__ = ["Measured"]


class Measured(nn.Module):
    """The half of `Adapted` that knows about memory. What nobody asks for is not imported."""

    method: Method
    state: State
    _memory_plan: Plan | None
    last: StepReport | None
    _pending: StepReport | None
    _shadow: Snapshot | None
    _base: list[nn.Module]
    _indices: bool

    def _keep(self, policy: MemoryPolicy, budget: Budget | None) -> None:
        """Set up how backward keeps what it needs."""
        if budget is not None and not isinstance(budget, Budget):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f'found {budget!r} for a budget, expected for instance Budget(memory="64 MB").')
        self._budget, self._measuring = budget, False
        self._asked = policy
        self._looked: Tensor | None = None
        self._keeper: Keeper | None = None
        self._memory_plan = None
        self._adopt(policy)

    @property
    def plan(self) -> Plan | str | None:
        """What was chosen: for a budget, the plan; else in words, what a method that chooses for itself does now."""
        if self._memory_plan is None:
            self.settle()
        return self._memory_plan or self.method.explain(self.state)

    def _adopt(self, policy: MemoryPolicy) -> None:
        """Let a policy decide from now on; what another one has declared is gone."""
        for weight in self.state.weights.values():
            weight.requires_grad_(True)
        table = self.state.table
        for names in (table.slots, table.generators):
            for name in [name for name in names if name.startswith("memory.")]:
                del names[name]
        self._policy = policy
        policy.setup(self.state)

    def _keeping(self, call: Call) -> contextlib.AbstractContextManager[object]:
        """Keep what backward needs as the policy says, where that is not PyTorch's way and something learns."""
        if not self.state.weights or (self._policy.name == "stock" and not self._measuring):
            return contextlib.nullcontext()
        return self._kept(call)

    @contextlib.contextmanager
    def _kept(self, call: Call) -> Generator[None]:
        with self._books().keeping(self._policy, self.state, call.x if self._looked is None else self._looked):
            yield
        if self._shadow is None or self._measuring:
            return
        with torch.no_grad():  # weight decay and the like reach weights without a gradient too
            for name, weight in self.state.weights.items():
                if not weight.requires_grad:
                    slot = f"weights.{name}"
                    before = (
                        self.state.table.slots[slot].initial if self.state.restarted else self._shadow.tensors[slot]
                    )
                    weight.copy_(torch.as_tensor(before))

    def _books(self) -> Keeper:
        if self._keeper is None:
            from acclimate.memory.keeper import Keeper

            self._keeper = Keeper()
        return self._keeper

    def _fit_budget(self, call: Call) -> None:
        """Before the first call, and before one that is larger in any way, choose the policy that fits."""
        if self._policy.by_depth and not self.state.order:
            self._find_order(call)
        if self._budget is None:
            return
        rows, size, wide = len(call.x), call.nbytes, not torch.is_autocast_enabled(call.x.device.type)
        demand = (rows, size, size / rows, float(wide))
        own, known = ("as asked for", self._asked), self._memory_plan
        if known is not None:
            if known.covers(demand):
                return
            own = ("as planned before", self._policy)
            demand = tuple(map(max, demand, known.demand))
        from acclimate.anatomy import blocks
        from acclimate.memory.plan import ladder, make_plan

        before, taken = self._policy, self.state.table.snapshot()
        steps, plan = ladder(self.state.weights.values(), blocks(self.state.model).values()), None
        own = (f"{own[0]}: {own[1].name}", own[1])
        try:
            plan = make_plan(self._budget, demand, own, steps, lambda policy: self._try_policy(policy, call))
        finally:
            self._adopt(before if plan is None else plan.chosen.policy)
            self.state.table.restore(taken)
        self._plan_by(self._policy, plan)

    def _plan_by(self, policy: MemoryPolicy, plan: Plan | None) -> None:
        """Go on with a plan, None for none, and its policy."""
        if policy is not self._policy:
            self._adopt(policy)
        self._memory_plan = plan
        self.method = replace(self.method, memory=policy)

    @contextlib.contextmanager
    def _planned(self, call: Call) -> Generator[None]:
        """Within this block the plan is one that covers the call; the first plan stays afterwards."""
        policy, plan, taken = self._policy, self._memory_plan, self.state.table.snapshot()
        self._fit_budget(call)
        try:
            yield
        finally:
            if plan is not None and self._memory_plan is not plan:
                self._plan_by(policy, plan)
                self.state.table.restore(taken)

    def _find_order(self, call: Call) -> None:
        """A step as PyTorch makes it, which is undone, shows in which order weights are used."""
        from acclimate.memory.stock import Stock

        policy, taken = self._policy, self.state.table.snapshot()
        try:
            self._adopt(Stock())
            self._measure(call)
            self.state.order = tuple(self._books().order)
        finally:
            self._adopt(policy)
            self.state.table.restore(taken)

    def _try_policy(self, policy: MemoryPolicy, call: Call) -> tuple[MemoryPolicy, int]:
        """The policy, held to what it does on this call, and the most bytes that it can then take."""
        assert self._budget is not None
        self._adopt(policy)
        state = sum(self._measure(call).values())
        books, count = self._books(), len(call.x)
        self.state.order = self.state.order or tuple(books.order)
        total = 2 * state + books.bound.peak  # state and its copy for rollback
        if not books.planned:
            return policy, total
        times = max(1.0, books.times)
        total += round(times * max(0.0, policy.most(count) - books.planned))
        room = max(0.0, self._budget.bytes - total) / times
        return policy.held_to((books.planned + room) / count), total

    @torch.inference_mode(False)
    def memory(self, *args: Any, **kwargs: Any) -> Memory:
        """Bytes of the model and of declared state by kind; with an input, also what one step on it keeps.

        The step is measured and undone.
        """
        self.settle()
        if not args and not kwargs:
            return self._memory(None)
        call = Call.of(args, kwargs, indices=self._indices).ordinary()
        with self._planned(call):
            return self._memory(call)

    @torch.inference_mode(False)
    def memory_report(self, *args: Any, **kwargs: Any) -> MemoryReport:
        """What backward keeps of each layer on this input, and how; `str()` of it is a table, `plot(path)` draws it.

        The step is measured and undone. Without an input: of the last step, measured or made, that a policy other than
        "stock" has kept books of; ValueError if there is none.
        """
        self.settle()
        if not args and not kwargs:
            return self._report_last()
        call = Call.of(args, kwargs, indices=self._indices).ordinary()
        from acclimate.memory.report import MemoryReport

        with self._planned(call):
            self._measure(call)
        return MemoryReport.of(self._books())

    def _report_last(self) -> MemoryReport:
        if self._keeper is None or self._policy.name == "stock":
            raise ValueError(
                f"found no books of a step (memory is {self._policy.name!r}), expected those that a policy other than "
                "'stock' keeps of each step that learns. Pass an input, or choose memory='exact' and answer a batch."
            )
        from acclimate.memory.report import MemoryReport

        return MemoryReport.of(self._keeper)

    def settle(self) -> None:
        """Read the verdict on the last step and undo it if it was refused. Called by whatever reads state."""
        raise NotImplementedError

    def _memory(self, call: Call | None) -> Memory:
        base = self._base[0]
        model = tensor_bytes((*base.parameters(), *base.buffers()))
        if call is None:
            rollback = 0 if self._shadow is None else tensor_bytes(self._shadow.tensors.values())
            return Memory(model, _by_kind(self.state), rollback)
        from acclimate.memory.device import device_peak

        count, books = len(call.x), self._books()
        # Of a small batch not too little: a policy leaves small tensors as they are.
        parts = (count // 8, count // 4) if count >= 64 else (count // 2, 3 * count // 4)
        few, more = max(min(2, count), parts[0]), max(min(4, count), parts[1])
        sizes: list[int] = []
        opening = 0
        for rows in (few, more):
            self._looked = call.x if call.alone else None  # so that what is probed is the whole batch's
            try:
                self._measure(call.rows(torch.arange(rows)))
            finally:
                self._looked = None
            sizes.append(books.held.since)
            opening = books.opening
        small, large = sizes
        slope = (large - small) / (more - few) if more > few else 0.0
        with device_peak(call.x.device) as device:
            state = self._measure(call)
        predicted = max(opening, round(small + slope * (count - few)))
        return Memory(model, state, sum(state.values()), books.held.peak, predicted, books.dense.peak, device())

    def _measure(self, call: Call) -> dict[str, int]:
        """One step, which takes the most that a step on such a batch can, and is undone; what it saves is in the books.

        Gives the bytes of declared state that it leaves, by kind; the next step takes a copy of it as well.
        """
        before, kept = self.state.table.snapshot(), (self.last, self._pending, self.state.extremes)
        self._measuring = self.state.rehearsing = True
        try:
            self._step_on(call, before)
            return _by_kind(self.state)
        finally:
            self._measuring = self.state.rehearsing = False
            self.state.end()
            self.last, self._pending, self.state.extremes = kept
            self.state.table.restore(before)

    def _step_on(self, call: Call, before: Snapshot) -> tuple[Tensor, Any]:
        """One step on a call whose state was copied before."""
        raise NotImplementedError


def _by_kind(state: State) -> dict[str, int]:
    return {str(kind): size for kind, size in state.table.bytes().items()}
