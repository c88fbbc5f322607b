"""The server as a process: it listens, and ends in order when it is told to."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import uvicorn
from prometheus_client import disable_created_metrics
from torch import nn

from acclimate.serve.app import create_app
from acclimate.serve.service import Service
from acclimate.serve.settings import Settings

__all__ = ["Ending", "run", "serve"]

_log = logging.getLogger(__name__)


def serve(
    settings: Settings,
    model: nn.Module,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    path: str | None = None,
    until: Callable[[], float | None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends it at once.

    Arguments: `host`, the address to listen at, this machine's own by default; `port`, 0 for any that is free, which
    the log then tells; `path`, of a Unix socket in place of both; `until`, returns when it is to end as well, and in
    how many seconds, None for `limits.drain`. Raises what kept the server from starting: ValueError for a state
    folder that belongs to another model or method or to a server that runs, OSError for an address that cannot be had.
    """
    app = create_app(settings, model)
    service: Service = app.state.service
    if until is not None:
        threading.Thread(target=lambda: service.drain(until()), name="acclimate-until", daemon=True).start()
    run(app, service, host=host, port=port, path=path)


class Ending(Protocol):
    """What knows when a server may end."""

    @property
    def failure(self) -> Exception | None: ...
    @property
    def asked(self) -> int: ...
    @property
    def drained(self) -> bool: ...
    @property
    def left(self) -> float: ...
    def drain(self) -> None: ...


def run(
    app: Any,
    ending: Ending,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    path: str | None = None,
) -> None:
    """Run an ASGI application until `ending` is drained. Raises as `serve`."""
    disable_created_metrics()  # when a counter began is no number that anybody watches
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        uds=path,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=30,
    )
    server = _Server(config, ending)
    try:
        server.run()
    except SystemExit as end:  # how uvicorn tells that it cannot listen
        if end.code:
            raise OSError(f"cannot listen at {path or f'{host}:{port}'}. Choose another --port or --host.") from end
    if ending.failure is not None:
        raise ending.failure


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ending: Ending) -> None:
        super().__init__(config)
        self._ending = ending
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains: connections stay open, and what asks for the health of the server is told."""
        if self._told:
            super().handle_exit(sig, frame)
            return
        self._told = True
        _log.info("%s: no more requests are taken; finishing %d", signal.Signals(sig).name, self._ending.asked)
        self._ending.drain()

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; asked ten times a second."""
        done = self._ending.failure is not None or self._ending.drained or await super().on_tick(counter)
        if done:  # what is still on its way gets what is left of the time, not as much again
            self.config.timeout_graceful_shutdown = max(1, round(self._ending.left))
        return done
