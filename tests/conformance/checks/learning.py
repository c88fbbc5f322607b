"""The promise that makes the others worth testing: the method learns."""

from __future__ import annotations

from conformance.tools import Batches, Factory, Subject, bits, flat, make

from .common import WARM


def check_learns(method: Subject, factory: Factory, batch: Batches) -> None:
    """The stream makes the method learn; on one that does not, the other checks would prove little.

    Steps are kept, every kind of declared state moves, and what weights have learned reaches the answers.
    """
    adapted = make(method, factory)
    fresh = {name: bits(slot.tensor) for name, slot in adapted.state.table.entries()}
    kept, kinds, moved = 0, set[str](), set[str]()
    for number in range(WARM):
        adapted(batch(number))
        kept += adapted.last.updated
        slots = dict(adapted.state.table.entries())
        kinds |= {slot.kind for slot in slots.values()}
        moved |= {slot.kind for name, slot in slots.items() if bits(slot.tensor) != fresh.get(name)}
    assert kept, f"no step was kept: {adapted.last.reason}"
    assert moved == kinds, f"of {sorted(kinds)} only {sorted(moved)} moved"
    if adapted.state.weights and not adapted.last.verdict.idle:
        with adapted.frozen():
            before = adapted(batch(80))
            adapted.reset()
            after = adapted(batch(80))
        assert bits(flat(before)[0]) != bits(flat(after)[0]), "what was learned does not reach the answers"
