"""Counts every answer that leaves the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Counter
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Counted"]


class Counted:
    """ASGI middleware. The label is the function that answered, of which there are few, never the path."""

    def __init__(self, app: ASGIApp, requests: Counter) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                endpoint = getattr(scope.get("endpoint"), "__name__", "none")
                self._requests.labels(endpoint, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)
