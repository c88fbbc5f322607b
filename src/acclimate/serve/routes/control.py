"""Paths that change streams. They need the token, and are off where there is none."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from acclimate.serve.routes.shared import Allowed, Serving, StreamName, errors
from acclimate.serve.schemas import Frozen, Keep, Published, Rollback
from acclimate.serve.service import Service

__all__ = ["router"]

router = APIRouter(prefix="/v1/streams/{stream}", tags=["control"], dependencies=[Allowed])

_ANSWERS = {200: {"model": Published}, **errors(401, 403, 404, 413, 422)}


def _published(service: Service, name: str, version: int) -> JSONResponse:
    return JSONResponse({"stream": name, "version": version, "frozen": service.stream(name).frozen})


@router.post("/rollback", summary="Return to a kept version", responses={**_ANSWERS, **errors(409)})
def rollback(service: Serving, stream: StreamName, to: Rollback) -> JSONResponse:
    return _published(service, stream, service.rollback(stream, to.version).number)


@router.post("/reset", summary="Return to the source", responses=_ANSWERS)
def reset(service: Serving, stream: StreamName) -> JSONResponse:
    return _published(service, stream, service.reset(stream).number)


@router.post("/freeze", summary="Learn no more, or learn again", responses=_ANSWERS)
def freeze(service: Serving, stream: StreamName, to: Frozen) -> JSONResponse:
    return _published(service, stream, service.freeze(stream, to.frozen).number)


@router.post("/snapshots", summary="Keep the current version under a name", responses={**_ANSWERS, **errors(409)})
def keep(service: Serving, stream: StreamName, under: Keep) -> JSONResponse:
    return _published(service, stream, service.keep(stream, under.name).number)


@router.delete("", summary="Forget the stream", responses={200: {"model": Published}, **errors(401, 403, 404, 422)})
def delete(service: Serving, stream: StreamName) -> JSONResponse:
    return JSONResponse({"stream": stream, "version": service.delete(stream).number, "frozen": True})
