"""Banks of fixed capacity against a list."""

from __future__ import annotations

import pytest
import torch

from acclimate.parts.queue import filled, put


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3, 3), (7, 1, 2, 12, 7, 30), (1,) * 16, (14, 8)])
def test_holds_the_newest_rows_each_in_its_place(sizes):
    """Row number t lies at t modulo 7; nothing is lost, doubled or moved."""
    bank, written, came = torch.full((7, 2), -1.0), torch.zeros((), dtype=torch.int64), []
    for size in sizes:
        rows = torch.arange(len(came), len(came) + size, dtype=torch.float64)[:, None].expand(-1, 2)
        put(bank, rows, written)
        written.add_(size)
        came += rows[:, 0].tolist()
        expected = [-1.0] * 7
        for number, value in enumerate(came):
            expected[number % 7] = value
        assert bank[:, 0].tolist() == expected
        assert filled(bank, written).tolist() == [number < len(came) for number in range(7)]
