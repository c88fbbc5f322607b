"""The allocator's peak on a CPU, against allocations whose sizes are known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.memory import profiled
from acclimate.memory.device import device_peak

CPU = torch.device("cpu")


def test_the_peak_is_that_of_what_is_alive_together() -> None:
    with profiled(), device_peak(CPU) as peak:
        first = torch.empty(1 << 20)  # 4 MiB
        second = torch.empty(1 << 20)
        del first
        third = torch.empty(1 << 19)
        del second, third
    assert peak() == pytest.approx(8 << 20, rel=0.001)


def test_nobody_watches_unless_asked() -> None:
    with device_peak(CPU) as peak:
        torch.empty(16)
    assert peak() is None
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 4))
    model = acclimate.adapt(net.eval(), "tent")
    assert model.memory(torch.rand(8, 3, 16, 16)).device is None


def test_a_step_takes_more_than_what_backward_holds() -> None:
    blocks = [layer for _ in range(6) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())]
    net = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(768, 4))
    x = torch.rand(32, 3, 16, 16)
    with profiled():
        stock = acclimate.adapt(net.eval(), "tent").memory(x)
        exact = acclimate.adapt(net.eval(), "tent", memory="exact").memory(x)
    assert stock.saved is not None and stock.device is not None and exact.device is not None
    assert stock.device >= stock.saved
    assert exact.device < stock.device
