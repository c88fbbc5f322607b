"""Banks of fixed capacity whose newest rows take the place of the oldest."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["filled", "put"]


def put(bank: Tensor, rows: Tensor, written: Tensor) -> None:
    """Write rows `[N, ...]` over the oldest of a bank `[capacity, ...]`, in place.

    `written` counts the rows that came before, a number on the device that the caller raises; so several banks
    can share it. Of more rows than there are places the last ones stay.
    """
    capacity, count = len(bank), len(rows)
    first = max(0, count - capacity)
    places = (written + torch.arange(first, count, device=bank.device)) % capacity
    bank.index_copy_(0, places, rows[first:].to(bank.dtype))


def filled(bank: Tensor, written: Tensor) -> Tensor:
    """Which places of the bank hold a row: `[capacity]`."""
    return torch.arange(len(bank), device=bank.device) < written
