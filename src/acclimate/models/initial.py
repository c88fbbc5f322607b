"""Initial weights from a private generator."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

__all__ = ["private_init"]


@contextmanager
def private_init(seed: int) -> Generator[None]:
    """Draw the initial weights of modules built inside by `seed`; the global generator does not move.

    >>> before = torch.get_rng_state()
    >>> with private_init(0):
    ...     layer = torch.nn.Linear(2, 2)
    >>> bool((before == torch.get_rng_state()).all())
    True
    """
    # Only the CPU's generator: torch.manual_seed would move those of all devices, beyond the fork.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
