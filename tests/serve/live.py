"""A server within this process, on a port of its own: quick to start, and its insides can be reached."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from acclimate.serve.app import create_app
from acclimate.serve.settings import Settings

from .served import TOKEN, network


@contextlib.contextmanager
def listening(app: FastAPI, port: int = 0) -> Iterator[str]:
    """The app at a free port, or at this one; gives its address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        _wait(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@contextlib.contextmanager
def serving(settings: Settings | None = None, port: int = 0) -> Iterator[tuple[str, FastAPI]]:
    """A ready server of the small network: its address and the app."""
    app = create_app(settings or Settings(method="tent", update="inline", token=TOKEN), network())
    with listening(app, port) as address:
        _wait(lambda: app.state.service.ready or app.state.service.failure)
        assert app.state.service.ready, app.state.service.failure
        yield address, app


def _wait(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)
