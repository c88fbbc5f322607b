"""The promises as functions: `check_*(method, model_factory, batch)`, for any method, also from other packages.

`method` is a name, a preset or an instance; `model_factory()` builds the same source model each time, and
`batch(n)` gives the n-th batch of a stream, `[8, ...]`, fit to learn from. Each function raises AssertionError
when the promise in its docstring is broken. `ALL` lists them.

Everything is compared bit for bit, with another instance that took the other road, never with recorded output.
"""

from __future__ import annotations

from collections.abc import Callable

from conformance.tools import Batches, Factory, Subject

from . import callers, costs, learning, source, state, transactions

__all__ = ["ALL", "callers", "costs", "learning", "source", "state", "transactions"]

ALL: tuple[Callable[[Subject, Factory, Batches], None], ...] = tuple(
    value
    for module in (learning, source, state, transactions, callers, costs)
    for name, value in vars(module).items()
    if name.startswith("check_") and value.__module__ == module.__name__
)
"""Every check of these modules."""
