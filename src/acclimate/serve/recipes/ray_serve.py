"""Streams behind Ray Serve: any replica answers any stream, and states move between replicas through the folder only.

    from ray import serve
    from acclimate.serve.recipes.ray_serve import application

    settings = Settings(method="tent", state_dir=Path("shared/state"))
    serve.run(application(("my_model.py:build", "w.safetensors"), settings))

It answers `POST /v1/streams/STREAM/predict` as `acclimate serve` does. Ray chooses the replica, and no routing of its
keeps a stream at one for certain; so each request locks its stream, takes up the newest version, and has written what
it learned before it is answered. The folder must be on a file system that all nodes have and whose locks hold.
"""

# no annotations as text: Ray hands the class to its replicas by value, where they could not be looked up
import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import Response

from acclimate.models import load_model
from acclimate.serve.bodies import JSON
from acclimate.serve.bounded import BodyLimit, Bounded
from acclimate.serve.errors import tell_errors
from acclimate.serve.host import StreamHost
from acclimate.serve.rendered import render
from acclimate.serve.routes.shared import StreamName
from acclimate.serve.settings import Settings
from acclimate.streams.shared import require

__all__ = ["application"]


def application(source: tuple[str, str | None], settings: Settings, *, replicas: int = 2, **options: Any) -> Any:
    """A Ray Serve application.

    Arguments: `source`, name and weights of the model, as `acclimate.models.load_model` takes them, for each replica;
    `settings`, with a `state_dir`; `replicas`; `options`, further ones of `serve.deployment`, such as
    `ray_actor_options`. ImportError without Ray Serve.

    What waits at Ray's proxy is bounded by `limits.queue` (503), bodies by `limits.body_bytes` (413).
    """
    serve = require("ray.serve", "The recipe", "ray-serve")
    limits = settings.limits
    app = FastAPI()
    tell_errors(app)
    app.add_middleware(Bounded, limits=limits)
    app.add_middleware(BodyLimit, limits=limits)

    class Streams:
        def __init__(self) -> None:
            self._host = StreamHost(load_model(*source), settings)

        @app.post("/v1/streams/{stream}/predict")
        async def predict(
            self,
            request: Request,
            stream: StreamName,
            update: Annotated[bool, Query()] = True,
            accept: Annotated[str, Header()] = JSON,
        ) -> Response:
            read = self._host.reader.reading(request.headers.get("content-type", ""))
            body = await request.body()
            return render(await asyncio.to_thread(lambda: self._host.answer(stream, read(body), learn=update)), accept)

    deployment = serve.deployment(
        num_replicas=replicas, max_ongoing_requests=limits.stream_queue, max_queued_requests=limits.queue, **options
    )
    return deployment(serve.ingress(app)(Streams)).bind()
