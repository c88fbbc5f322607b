"""Paths for whoever looks after the server. No limiter stands before them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from acclimate.serve.routes.shared import Serving, errors
from acclimate.serve.schemas import Info, Ready

__all__ = ["router"]

router = APIRouter(tags=["health"])


@router.get("/livez", summary="The process lives", responses={200: {"model": dict[str, bool]}})
async def livez() -> JSONResponse:
    return JSONResponse({"live": True})


@router.get(
    "/readyz",
    summary="Requests are taken",
    responses={200: {"model": Ready}, 503: {"model": Ready, "description": "Not yet, or no longer."}},
)
async def readyz(service: Serving) -> JSONResponse:
    return JSONResponse({"ready": service.ready, "reason": service.reason}, 200 if service.ready else 503)


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
)
async def metrics(service: Serving) -> Response:
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/info", summary="What is served", responses={200: {"model": Info}, **errors(503)})
async def info(service: Serving) -> JSONResponse:
    found: dict[str, Any] = service.info()
    return JSONResponse(found)
