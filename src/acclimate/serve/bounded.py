"""Bounds before an application: how large a body is, how slow, and how many requests there are at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from acclimate.serve.errors import tell
from acclimate.serve.refused import Refused, full, too_late
from acclimate.serve.settings import Limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOKING", "BodyLimit", "Bounded"]

LOOKING = ("GET", "HEAD", "OPTIONS")
"""What changes nothing and has no body."""

_COMMAND = 1 << 16
_LINGER = 2.0


class _Unread(Refused, HTTPException):
    """A refusal in the middle of a body, which FastAPI takes for one of its own and passes on."""

    def __init__(self, refused: Refused) -> None:
        Refused.__init__(self, **vars(refused))
        self.status_code, self.detail, self.headers = self.status, self.found, None


class BodyLimit:
    """ASGI middleware. Whoever reads a body that is too large or too slow gets Refused, 413 or 504.

    A body to learn from may have `limits.body_bytes`, any other 64 KiB of them: what parses commands would take in
    whatever comes, before it looks at the token. All have `limits.deadline` seconds. What a client still sends when its
    answer is ready is read and thrown away, up to four times the limit and two seconds, so that it sees the answer;
    then the connection is closed. Of a client that hangs up nothing is told.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, limits = dict[bytes, bytes](scope["headers"]), self._limits
        most = limits.body_bytes
        if not str(scope["path"]).endswith("/predict"):
            most = min(most, _COMMAND)
        end = time.monotonic() + limits.deadline
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

        async def bounded() -> Message:
            if ended:
                return await receive()
            if told > most:
                raise _Unread(_too_large(told, most))
            try:
                async with asyncio.timeout(end - time.monotonic()):
                    message = await take()
            except TimeoutError as error:
                raise _Unread(too_late(limits)) from error
            if taken > most:
                raise _Unread(_too_large(taken, most))
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

        with contextlib.suppress(ClientDisconnect):
            await self._app(scope, bounded, closing)


def _too_large(found: int, most: int) -> Refused:
    return Refused(
        413, found=f"a body of {found} bytes or more.", expected=f"at most {most}", do="Send fewer rows at once."
    )


class Bounded:
    """ASGI middleware. Reads whole bodies before the application sees them; what merely looks passes by.

    Arguments: `app`; `limits`, of which `queue` holds here: beyond it the answer is 503 with Retry-After. Behind a
    `BodyLimit` it costs at most `queue * body_bytes` of memory.
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
            body = await Request(scope, receive).body()
            await self._app(scope, _whole(body, receive), send)
        except Refused as refused:
            await tell(refused)(scope, receive, send)
        finally:
            self.asked -= 1


def _whole(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_one() -> Message:
        return messages.pop() if messages else await receive()

    return next_one
