"""The path that answers."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from acclimate.serve.answering import too_late
from acclimate.serve.answers import Answer, as_json, as_safetensors
from acclimate.serve.asked import Asked
from acclimate.serve.bodies import JSON, SAFETENSORS
from acclimate.serve.refused import Refused
from acclimate.serve.routes.shared import Serving, StreamName, errors
from acclimate.serve.schemas import PREDICT_BODY, Answered
from acclimate.serve.service import Service

__all__ = ["router"]

router = APIRouter(tags=["answers"])


@router.post(
    "/v1/streams/{stream}/predict",
    summary="Answer a batch, and learn from it",
    response_class=Response,
    openapi_extra=PREDICT_BODY,
    responses={
        200: {"model": Answered, "content": {SAFETENSORS: {"schema": {"type": "string", "format": "binary"}}}},
        **errors(413, 415, 422, 429, 503, 504),
    },
)
async def predict(
    request: Request,
    service: Serving,
    stream: StreamName,
    update: Annotated[bool, Query(description="Whether this batch may be learned from.")] = True,
    accept: Annotated[str, Header(description=f"{JSON} or {SAFETENSORS}")] = JSON,
) -> Response:
    service.admit()
    read = service.reader.reading(request.headers.get("content-type", ""))
    service.asked += 1
    try:
        end = time.monotonic() + service.settings.limits.deadline
        body = await _in_time(request, service, end)
        render = _safetensors if SAFETENSORS in accept.lower() else _json
        return await _answer(service, service.ask(stream, lambda: read(body), learn=update, render=render), end)
    finally:
        service.asked -= 1


async def _in_time(request: Request, service: Service, end: float) -> bytes:
    try:
        async with asyncio.timeout(end - time.monotonic()):
            return await _body(request, service.settings.limits.body_bytes)
    except TimeoutError as error:
        raise too_late(service.settings) from error


async def _answer(service: Service, asked: Asked, end: float) -> Response:
    future = asyncio.wrap_future(asked.future)
    done, _ = await asyncio.wait([future], timeout=max(0.0, end - time.monotonic()))
    if not done and asked.claim():
        raise too_late(service.settings)
    return await future


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


def _json(answer: Answer) -> Response:
    return Response(as_json(answer), media_type=JSON, headers={"Acclimate-Version": str(answer.version)})


def _safetensors(answer: Answer) -> Response:
    facts = {f"Acclimate-{name.replace('_', '-').title()}": _text(value) for name, value in answer.facts().items()}
    return Response(as_safetensors(answer), media_type=SAFETENSORS, headers=facts)


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
