"""The server's HTTP face."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from torch import nn

import acclimate
from acclimate.serve.bounded import BodyLimit
from acclimate.serve.counted import Counted
from acclimate.serve.errors import tell_errors
from acclimate.serve.openapi import describe
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
    tell_errors(app)
    app.add_middleware(Counted, requests=service.metrics.requests)
    app.add_middleware(BodyLimit, limits=service.settings.limits)
    return app


async def _open(service: Service) -> None:
    try:
        await asyncio.to_thread(service.open)
    except Exception as error:
        service.failure, service.reason = error, f"the server cannot start: {error}"
        _log.error("cannot start: %s", error)
