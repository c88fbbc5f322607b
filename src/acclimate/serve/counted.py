"""Counts every answer that leaves the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Counted"]


def _answering(scope: Scope) -> str:
    return getattr(scope.get("endpoint"), "__name__", "none")


class Counted:
    """ASGI middleware. The label is the function that answered, of which there are few, never the path.

    Arguments: `name`, gives it; by default as FastAPI notes it.
    """

    def __init__(self, app: ASGIApp, requests: Counter, name: Callable[[Scope], str] = _answering) -> None:
        self._app, self._requests, self._name = app, requests, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._requests.labels(self._name(scope), str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)
