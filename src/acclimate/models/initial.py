"""Initial weights from a private generator."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

import torch

__all__ = ["private_init"]

_LOCK = threading.RLock()

if hasattr(os, "register_at_fork"):  # else a child could inherit a lock that nobody holds any more
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


@contextmanager
def private_init(seed: int) -> Generator[None]:
    """Draw the initial weights of modules built inside by `seed`; the global generator does not move.

    Layers draw from the process's one global generator, which is therefore lent, under a lock: of several threads one
    is inside at a time, so each gets the draws of its own seed. A thread that draws from the global generator without
    this, while another is inside, gets draws of that one's seed and disturbs them.

    >>> before = torch.get_rng_state()
    >>> with private_init(0):
    ...     layer = torch.nn.Linear(2, 2)
    >>> bool((before == torch.get_rng_state()).all())
    True
    """
    # Only the CPU's generator: torch.manual_seed would move those of all devices, beyond the fork.
    with _LOCK, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
