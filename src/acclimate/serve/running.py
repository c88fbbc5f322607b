"""The server as a process: it listens, and ends in order when it is told to."""

from __future__ import annotations

import logging
import signal
from types import FrameType

import uvicorn
from torch import nn

from acclimate.serve.app import create_app
from acclimate.serve.service import Service
from acclimate.serve.settings import Settings

__all__ = ["serve"]

_log = logging.getLogger(__name__)


def serve(settings: Settings, model: nn.Module, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends it at once.

    Arguments: `host`, the address to listen at, this machine's own by default; `port`, 0 for any that is free, which
    the log then tells. Raises what kept the server from starting: ValueError for a state folder that belongs to
    another model or method or to a server that runs, OSError for an address that cannot be had.
    """
    app = create_app(settings, model)
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(settings.limits.drain)),
    )
    server = _Server(config, service)
    try:
        server.run()
    except SystemExit as end:  # how uvicorn tells that it cannot listen
        if end.code:
            raise OSError(f"cannot listen at {host}:{port}. Choose another --port or --host.") from end
    if service.failure is not None:
        raise service.failure


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains: connections stay open, and what asks for the health of the server is told."""
        if self._told:
            super().handle_exit(sig, frame)
            return
        self._told = True
        _log.info("%s: no more requests are taken; finishing %d", signal.Signals(sig).name, self._service.asked)
        self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; asked ten times a second."""
        if self._service.failure is not None or self._service.drained:
            return True
        return await super().on_tick(counter)
