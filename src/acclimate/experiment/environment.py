"""What a result depends on besides the code: versions, machine, threads."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import torch

import acclimate

__all__ = ["environment"]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def environment(device: str = "cpu") -> dict[str, str | int]:
    """Versions, machine, threads and device, ready for JSON. No path and no user name is in it."""
    described: dict[str, str | int] = {
        "acclimate": acclimate.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(terse=True),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "device": device,
    }
    if device.startswith("cuda"):
        described["accelerator"] = torch.cuda.get_device_name(device)
    return described
