"""Updates in a process of their own: they take nothing from answers, and one that hangs is ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from acclimate.core.guard import build_guard
from acclimate.core.method import methods
from acclimate.models import load_model
from acclimate.serve.overlay import Answered, Overlay, Stepped
from acclimate.serve.packed import Packed
from acclimate.serve.settings import Settings

__all__ = ["Remote", "main"]

_log = logging.getLogger(__name__)

_START = 300.0
_NICE = 19


class Remote:
    """A process that has the same model and makes steps with it. States and batches go through a socket, as bytes.

    Arguments: `settings`, with `source`; `identity`, what it must have in common with this process. Raises ValueError
    if the process cannot load that model or gets another one. Costs a second copy of the model and of torch.
    """

    def __init__(self, settings: Settings, identity: Mapping[str, Any]) -> None:
        self._settings, self._identity = settings, identity
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._ended = False
        self._start()

    def step(self, state: Packed, x: Tensor) -> Stepped:
        """One step from this state. TimeoutError after `limits.update_seconds`, RuntimeError if it failed."""
        connection = self._connection or self._start()
        try:
            with self._ending(self._settings.limits.update_seconds):
                connection.send_bytes(safetensors.torch.save({"x": x.contiguous()}))
                connection.send_bytes(state.dump())
                told = json.loads(connection.recv_bytes())
                if "error" in told:
                    raise RuntimeError(told["error"])
                raw = connection.recv_bytes()
        except (OSError, EOFError):
            self.close()
            raise
        answered = Answered(torch.empty(0), told["held"], told["held_at_source"])
        return Stepped(answered, Packed.load(raw) if raw else None, told["outcome"], told["reason"], told["values"])

    def end(self) -> None:
        """Whatever it does, let it do no more, and start no other one; the step that waits for it fails."""
        self._ended = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None

    @contextmanager
    def _ending(self, seconds: float) -> Iterator[None]:
        """End the process unless it is done in time: it may as well take nothing in as give no answer. TimeoutError."""
        process, late = self._process, threading.Event()
        assert process is not None

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, EOFError) as error:
            if late.is_set():
                raise TimeoutError(f"no answer from the updating process within {seconds:g} seconds") from error
            raise
        finally:
            timer.cancel()

    def _start(self) -> Connection:
        if self._ended:
            raise OSError("the server is about to end")
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "acclimate.serve.remote", str(theirs.fileno())]
            # a session of its own: what the terminal tells its foreground is for the server to hear
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        connection = self._connection = Connection(ours.detach())
        words = {**self._identity, "source": self._settings.source, "threads": self._settings.threads}
        try:
            with self._ending(_START):
                connection.send_bytes(json.dumps(words).encode())
                told = json.loads(connection.recv_bytes())
        except (OSError, EOFError) as error:
            self.close()
            raise ValueError("the updating process ended before it began. Try --updater thread.") from error
        if "error" not in told and told["base"] != self._identity["base"]:
            told["error"] = "another model is built there; perhaps its weights are random. Give it --weights."
        if "error" in told:
            self.close()
            name = self._settings.source[0] if self._settings.source else "the model"
            raise ValueError(f"the updating process cannot work with {name}: {told['error']} Or: --updater thread.")
        return connection


def main(handle: int) -> None:
    """The other side: load the model, then make steps until the connection ends, and by nothing else that is told."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    os.nice(_NICE)
    connection = Connection(handle)
    words = json.loads(connection.recv_bytes())
    torch.set_num_threads(words["threads"])
    try:
        overlay = _overlay(words)
        base = overlay.identity()["base"]
    except Exception as error:
        connection.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return
    connection.send_bytes(json.dumps({"base": base}).encode())
    while True:
        try:
            x = safetensors.torch.load(connection.recv_bytes())["x"]
            state = Packed.load(connection.recv_bytes())
        except (EOFError, OSError):
            return
        _step(connection, overlay, state, x)


def _overlay(words: Mapping[str, Any]) -> Overlay:
    spec, weights = words["source"]
    settings = Settings(
        method=methods.build(words["method"]), guard=build_guard(words["guard"]), seed=words["seed"], update="off"
    )
    return Overlay(load_model(spec, weights), settings)


def _step(connection: Connection, overlay: Overlay, state: Packed, x: Tensor) -> None:
    try:
        stepped = overlay.step(state, x)
    except Exception as error:
        connection.send_bytes(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return
    words = {
        "held": stepped.answered.held,
        "held_at_source": stepped.answered.held_at_source,
        "outcome": stepped.outcome,
        "reason": stepped.reason,
        "values": stepped.values,
    }
    connection.send_bytes(json.dumps(words).encode())
    connection.send_bytes(b"" if stepped.state is None else stepped.state.dump())


if __name__ == "__main__":
    main(int(sys.argv[1]))
