"""Paths that tell about streams."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from acclimate.serve.routes.shared import Serving, StreamName, errors
from acclimate.serve.schemas import Lines, Snapshots, Status

__all__ = ["router"]

router = APIRouter(prefix="/v1/streams", tags=["streams"])


@router.get("", summary="All streams, a line each", responses={200: {"model": Lines}})
async def listed(service: Serving) -> JSONResponse:
    return JSONResponse({"streams": [stream.line() for stream in service.streams()]})


@router.get("/{stream}", summary="One stream", responses={200: {"model": Status}, **errors(404, 422)})
async def status(service: Serving, stream: StreamName) -> JSONResponse:
    return JSONResponse(service.stream(stream).status())


@router.get(
    "/{stream}/snapshots",
    summary="Versions that can be returned to",
    responses={200: {"model": Snapshots}, **errors(404, 422)},
)
async def snapshots(service: Serving, stream: StreamName) -> JSONResponse:
    return JSONResponse({"stream": stream, "snapshots": service.stream(stream).snapshots()})
