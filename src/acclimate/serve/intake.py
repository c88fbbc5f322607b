"""Taking in a request's body, within bounds, and telling whoever asked what is refused."""

from __future__ import annotations

import asyncio
import time

from fastapi import Request
from fastapi.responses import JSONResponse

from acclimate.serve.refused import Refused, too_late
from acclimate.serve.settings import Limits

__all__ = ["read_body", "tell"]


async def read_body(request: Request, limits: Limits, end: float) -> bytes:
    """The whole body, by this time of the monotonic clock. Raises Refused if it is too large or too slow."""
    try:
        async with asyncio.timeout(end - time.monotonic()):
            return await _body(request, limits.body_bytes)
    except TimeoutError as error:
        raise too_late(limits) from error


async def _body(request: Request, most: int) -> bytes:
    def too_large(found: str) -> Refused:
        return Refused(
            413, found=f"a body of {found} bytes.", expected=f"at most {most}", do="Send fewer rows at once."
        )

    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise too_large(told)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large(f"more than {most}")
    return bytes(body)


def tell(refused: Refused) -> JSONResponse:
    """The one shape of every error."""
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(refused.body(), refused.status, headers)
