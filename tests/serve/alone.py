"""A service without HTTP, in this process: opened in no time, and everything in it can be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from acclimate.serve.audit import AuditLog
from acclimate.serve.service import Service
from acclimate.serve.settings import Settings

from .served import network


@contextmanager
def alone(folder: Path | None = None, **settings: Any) -> Iterator[Service]:
    """One that learns with each answer unless told otherwise."""
    service = Service(Settings(**{"guard": None, "update": "inline", "state_dir": folder} | settings), network())
    service.open()
    try:
        yield service
    finally:
        service.close()


def sample(service: Service, name: str, **labels: str) -> float | None:
    """The value of one of its metrics."""
    return service.metrics.registry.get_sample_value(name, labels)


def full_for(patched: pytest.MonkeyPatch, *events: str) -> None:
    """Let the disk be full for lines of the audit log about these events."""
    real: Callable[..., None] = AuditLog.__call__

    def write(log: AuditLog, line: Any) -> None:
        if line["event"] in events:
            raise OSError(28, "No space left on device")
        real(log, line)

    patched.setattr(AuditLog, "__call__", write)
