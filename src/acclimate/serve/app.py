"""The server's HTTP face."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
from collections.abc import AsyncGenerator

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from torch import nn

import acclimate
from acclimate.serve.body_limit import BodyLimit
from acclimate.serve.counted import Counted
from acclimate.serve.openapi import describe
from acclimate.serve.refused import Refused
from acclimate.serve.routes import control, health, predict, streams
from acclimate.serve.service import Service
from acclimate.serve.settings import Settings

__all__ = ["create_app"]

_log = logging.getLogger(__name__)


def create_app(settings: Settings, model: nn.Module) -> FastAPI:
    """The server as an ASGI application; its `state.service` is the `Service`.

    It gets ready while it runs: until then `/readyz` says why it is not.

    >>> from torch import nn
    >>> app = create_app(Settings(method="source"), nn.Linear(4, 2))
    >>> app.state.service.ready
    False
    """
    service = Service(settings, model)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        opening = asyncio.create_task(_open(service))
        yield
        await opening
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="acclimate",
        version=acclimate.__version__,
        summary="Answers of a model that adapts to each stream, without labels.",
        lifespan=life,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    for part in (health, predict, streams, control):
        app.include_router(part.router)
    if importlib.util.find_spec("acclimate.serve.page") is not None:
        from acclimate.serve.page import router  # pyright: ignore[reportMissingImports]

        app.include_router(router)
    app.openapi = functools.cache(lambda: describe(app))
    _tell_errors(app, service)
    return app


async def _open(service: Service) -> None:
    try:
        await asyncio.to_thread(service.open)
    except Exception as error:
        service.failure, service.reason = error, f"the server cannot start: {error}"
        _log.error("cannot start: %s", error)


def _tell_errors(app: FastAPI, service: Service) -> None:
    """One shape for every error."""

    def told(refused: Refused) -> JSONResponse:
        headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
        if refused.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(refused.body(), refused.status, headers)

    async def on_refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return told(error)

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found = f"{place}: {first['msg']}."
        return told(Refused(422, found=found, expected="what /openapi.json says", do="Mend the request."))

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        unreadable = error.status_code == 400  # of a body that is not even text
        answer = told(
            Refused(
                422 if unreadable else error.status_code,
                found=f"{request.method} {request.url.path}: {error.detail}.",
                expected="what /openapi.json says",
                do="Mend the request.",
            )
        )
        answer.headers.update(error.headers or {})
        return answer

    async def on_failure(request: Request, error: Exception) -> JSONResponse:
        return told(
            Refused(
                500,
                found=f"the server failed: {type(error).__name__}.",
                expected="an answer",
                do="See the server's log.",
            )
        )

    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_failure)
    app.add_middleware(Counted, metrics=service.metrics)
    app.add_middleware(BodyLimit, limits=service.settings.limits)
