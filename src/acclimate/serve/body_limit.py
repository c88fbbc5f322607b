"""Bounds what a connection can send: no body is taken in beyond its limit, and none is read on and on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from acclimate.serve.settings import Limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BodyLimit"]

_COMMAND = 1 << 16
_LINGER = 2.0


class BodyLimit:
    """ASGI middleware.

    A body to learn from may have `limits.body_bytes`, any other 64 KiB of them: what parses commands would take in
    whatever comes, before it looks at the token. What a client still sends when its answer is ready is read and thrown
    away, up to four times the limit and two seconds, so that it sees the answer; then the connection is closed.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._body = app, limits.body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict[bytes, bytes](scope["headers"])
        predicts = str(scope["path"]).endswith("/predict")
        most = self._body if predicts else min(self._body, _COMMAND)
        length = headers.get(b"content-length", b"")
        told = int(length) if length.isdigit() else 0
        ended = told == 0 and b"transfer-encoding" not in headers
        taken = 0

        async def take() -> Message:
            nonlocal taken, ended
            message = await receive()
            taken += len(message.get("body", b""))
            ended = ended or not message.get("more_body", False)
            return message

        async def counting() -> Message:
            message = await take()
            if not predicts and max(taken, told) > most:
                raise HTTPException(413, f"a body of more than {most} bytes")
            return message

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LINGER):
                        while not ended and max(taken, told) <= 4 * most:
                            await take()
                if not ended:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, counting, closing)
