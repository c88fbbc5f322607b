"""Bounds before an application that has none: how many requests it has at once, how large they are, how slow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from acclimate.serve.intake import read_body, tell
from acclimate.serve.refused import Refused, full
from acclimate.serve.settings import Limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOKING", "Bounded"]

LOOKING = ("GET", "HEAD", "OPTIONS")
"""What changes nothing and has no body."""


class Bounded:
    """ASGI middleware. Reads whole bodies before the application sees them; what merely looks passes by.

    Arguments: `app`; `limits`, of which `queue`, `body_bytes` and `deadline` hold here. Beyond them it answers 503
    with Retry-After, 413 and 504. Costs at most `queue * body_bytes` of memory.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self.asked = 0
        """Requests that are read or wait for their answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in LOOKING:
            await self._app(scope, receive, send)
            return
        if self.asked >= self._limits.queue:
            await tell(full(self._limits))(scope, receive, send)
            return
        self.asked += 1
        try:
            body = await read_body(Request(scope, receive), self._limits, time.monotonic() + self._limits.deadline)
            await self._app(scope, _whole(body, receive), send)
        except Refused as refused:
            await tell(refused)(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody waits for an answer
        finally:
            self.asked -= 1


def _whole(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_one() -> Message:
        return messages.pop() if messages else await receive()

    return next_one
