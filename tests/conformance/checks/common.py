"""What checks begin with and end on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import acclimate
from acclimate.adapted import Adapted
from conformance.tools import Batches, Factory, Fault, Faulty, Subject, answers, assert_same, book, make

WARM = 3
"""Batches before the event under test, so that optimisers, banks and generators are in motion."""


def warmed(method: Subject, factory: Factory, batch: Batches, **options: Any) -> Adapted:
    adapted = make(method, factory, **options)
    answers(adapted, map(batch, range(WARM)))
    return adapted


def later_batches(batch: Batches, count: int = 3) -> list[Tensor]:
    return [batch(100 + number) for number in range(count)]


def same_future(found: Adapted, expected: Adapted, batch: Batches, what: str) -> None:
    """Equal now, and equal in all that follows."""
    assert_same(book(found), book(expected), f"state {what}")
    later = later_batches(batch)
    assert_same(answers(found, later), answers(expected, later), f"answers {what}")
    assert_same(book(found), book(expected), f"state after further batches {what}")


def faulty(method: Subject, factory: Factory, **options: Any) -> tuple[Adapted, Fault]:
    fault = Fault()
    return acclimate.adapt(Faulty(factory(), fault), method, **options), fault
