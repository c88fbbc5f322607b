"""The path that answers."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response

from acclimate.serve.asked import Asked
from acclimate.serve.bodies import JSON, SAFETENSORS
from acclimate.serve.refused import too_late
from acclimate.serve.rendered import render
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
        body = await request.body()
        asked = service.ask(stream, lambda: read(body), learn=update, render=lambda answer: render(answer, accept))
        return await _answer(service, asked, end)
    finally:
        service.asked -= 1


async def _answer(service: Service, asked: Asked, end: float) -> Response:
    future = asyncio.wrap_future(asked.future)
    done, _ = await asyncio.wait([future], timeout=max(0.0, end - time.monotonic()))
    if not done and asked.claim():
        raise too_late(service.settings.limits)
    return await future
