"""What starts a member's worker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from acclimate.fields.recommendation.serving.sockets import called, hang_up
from acclimate.fields.recommendation.serving.wire import Wire

__all__ = ["Worker", "local", "remote"]

_MODULE = "acclimate.fields.recommendation.serving"


class Worker:
    """A wire, and how what is at its other end is ended, which must break the wire; it may be called twice."""

    def __init__(self, wire: Wire, end: Callable[[], None] = lambda: None) -> None:
        self.wire, self.end = wire, end


def local(path: str | Path, *modules: str) -> Callable[[], Worker]:
    """A process on this machine, of a system with POSIX file handles, for the member of a file.

    Arguments: `modules`, names of modules to import there first, such as one that registers rankers of yours. The
    program that asks is not imported.
    """

    def start() -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno()), str(path), *modules]
            places = os.pathsep.join(each for each in sys.path if each)
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": places},
                start_new_session=True,
            )
        wire: Connection[Any, Any] = Connection(ours.detach())

        def end() -> None:
            process.kill()
            process.wait()

        return Worker(wire, end)

    return start


def remote(host: str, port: int, key: bytes) -> Callable[[], Worker]:
    """A worker that listens elsewhere, see `worker.listen`."""

    def start() -> Worker:
        link, line = called(host, port, key)
        return Worker(link, lambda: hang_up(line))

    return start
