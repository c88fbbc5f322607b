"""Groups of all ranks: made once all have arrived, and taken down once all have met again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from acclimate.wire.faults import LostPeer

__all__ = ["group_of_all", "retire"]

_KEY = "acclimate/assembly"
_State = tuple[int, set[int]]
_RETIRED: list[tuple[dist.ProcessGroup, object]] = []


def group_of_all(backend: str, limit: timedelta) -> dist.ProcessGroup:
    """A new group of all ranks of the job; every rank calls it.

    torch.distributed counts the groups that a process has asked for, and ranks with different counts never find each
    other again. So none is asked for before all ranks are here. Groups that this rank retired are taken down then:
    whoever comes here has left them.

    Raises:
        LostPeer: a rank did not come within the limit. All may try again.
    """
    _assemble(limit)
    try:
        group = dist.new_group(backend=backend, timeout=limit)
    except RuntimeError as error:
        raise LostPeer(
            f"the ranks found each other, but could not connect ({_first(error)}). Start all of them again."
        ) from error
    assert isinstance(group, dist.ProcessGroup)
    while _RETIRED:
        old, _ = _RETIRED.pop()
        with suppress(ValueError):  # of a job that has ended
            dist.destroy_process_group(old)
    return group


def retire(group: dist.ProcessGroup, held: object) -> None:
    """Let a group be taken down when all ranks meet next, or with the job.

    Until then others may read what was sent in it last, such as why this rank failed.

    Arguments:
        group: from `group_of_all`.
        held: buffers of what is under way in it.
    """
    _RETIRED.append((group, held))


def _assemble(limit: timedelta) -> None:
    """Return on all ranks when all have come; a rank that has waited too long goes as if it had never come.

    One entry of the job's store tells the number of the assembly and who is here, and changes by compare and swap.
    """
    store, rank, size = _store(), dist.get_rank(), dist.get_world_size()
    number, here = _changed(store, lambda number, here: (number, here | {rank}), size)
    if len(here) == size:
        store.set(f"{_KEY}/{number}", "all")
        return
    try:
        store.wait([f"{_KEY}/{number}"], limit)
    except RuntimeError as error:
        now, here = _changed(store, lambda now, here: (now, here - {rank} if now == number else here), size)
        if now == number:
            missing = sorted(set(range(size)) - here - {rank})
            raise LostPeer(
                f"ranks {missing} did not come within {limit.total_seconds():g} s to where all ranks connect. See "
                "their own errors; then let all ranks try again."
            ) from error


def _changed(store: Store, change: Callable[[int, set[int]], _State], size: int) -> _State:
    """Change the entry; what it is then, but with the number that it had if all have come."""
    try:
        found = store.compare_set(_KEY, "", "0:").decode()
        while True:
            number, _, names = found.partition(":")
            number, here = change(int(number), {int(name) for name in names.split(",") if name})
            full = len(here) == size
            wanted = f"{number + full}:" + ("" if full else ",".join(map(str, sorted(here))))
            found = store.compare_set(_KEY, found, wanted).decode()
            if found == wanted:
                return number, here
    except RuntimeError as error:
        raise LostPeer(f"the store of the job is gone ({_first(error)}). Start all ranks again.") from error


def _store() -> Store:
    world = dist.group.WORLD
    assert world is not None
    return world.get_group_store()


def _first(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]
