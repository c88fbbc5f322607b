"""Checkpoints are taken in whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor

from acclimate.fields.wide_area.replicas.averaging import opened
from acclimate.wire.faults import LinkFault

__all__ = ["expect_messages", "expect_same", "or_as_before"]


class _Stateful(Protocol):
    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def expect_same(saved: Any, here: Mapping[str, Any]) -> None:
    """ValueError, which names the first difference, unless a checkpoint was written by what is here.

    >>> expect_same({"rank": 1}, {"rank": 0})
    Traceback (most recent call last):
    ...
    ValueError: rank is 1 in the checkpoint and 0 here. Load the file that this rank wrote, into what had written it.
    """
    found: Mapping[str, Any] = saved if isinstance(saved, Mapping) else {}
    for name, value in here.items():
        if name not in found or found[name] != value:
            raise ValueError(
                f"{name} is {_short(found.get(name))} in the checkpoint and {_short(value)} here. Load the file that "
                "this rank wrote, into what had written it."
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def expect_messages(queue: Sequence[Mapping[str, Any]], step: int, size: int, counts: Sequence[int]) -> None:
    """ValueError unless these are the last messages before an iteration, whole, in order, from all ranks.

    Arguments:
        queue: number and packets, uint8, of each message.
        step: of the checkpoint.
        size: ranks.
        counts: entries of each piece that an iteration sends.
    """
    first = step - len(queue) // max(1, len(counts))
    wanted = [(number, count) for number in range(first, step) for count in counts]
    if [each["number"] for each in queue] != [number for number, _ in wanted]:
        raise ValueError(f"the checkpoint of iteration {step} holds messages of others. Load one that was not altered.")
    for each, (number, count) in zip(queue, wanted, strict=True):
        packets: list[Tensor] = each["packets"]
        if len(packets) != size:
            raise ValueError(f"message {number} of the checkpoint is of {len(packets)} ranks, expected {size}.")
        try:
            opened(packets, number, count)
        except LinkFault as fault:
            raise ValueError(f"a message of the checkpoint cannot be used: {fault}") from fault


@contextmanager
def or_as_before(*parts: _Stateful) -> Iterator[None]:
    """Give these their present state back if anything is raised inside."""
    kept = [each.state_dict() for each in parts]
    try:
        yield
    except BaseException:
        for each, state in zip(parts, kept, strict=True):
            each.load_state_dict(state)
        raise
