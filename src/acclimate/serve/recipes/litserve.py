"""Streams behind LitServe: its workers are processes that know nothing of each other, and meet in the folder.

    from acclimate.serve.recipes.litserve import server

    if __name__ == "__main__":
        settings = Settings(method="tent", state_dir=Path("state"))
        server(("my_model.py:build", "w.safetensors"), settings, workers=2).run(port=8000, num_api_servers=1)

`POST /predict` takes `{"stream": "line-3", "inputs": [...]}`, with `"update": false` for a batch to learn nothing from.
A model that adapts inside `predict` would become another one in each worker, and be gone with it; here each request
locks its stream, takes up the newest version, and has written what it learned before it is answered. LitServe's queue
has no bound of its own: what stands before it here has.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from fastapi import HTTPException
from torch import Tensor

from acclimate.models import load_model
from acclimate.serve.answers import Answer, as_json
from acclimate.serve.bounded import BodyLimit, Bounded
from acclimate.serve.host import StreamHost
from acclimate.serve.refused import Refused
from acclimate.serve.settings import Settings
from acclimate.streams.shared import require

__all__ = ["Streams", "server"]

_Base: Any = object
if importlib.util.find_spec("litserve") is not None:  # without it `server` says how to get it
    _Base = importlib.import_module("litserve").LitAPI


class Streams(_Base):
    """What each worker runs: a host of its own."""

    def __init__(self, source: tuple[str, str | None], settings: Settings) -> None:
        super().__init__(max_batch_size=1)  # a batch of several streams would mix their statistics
        self._source, self._settings = source, settings

    def setup(self, device: str) -> None:
        self._host = StreamHost(load_model(*self._source), self._settings)

    # an annotation would tell LitServe what to parse; without one it gives the value of a JSON body
    def decode_request(self, request) -> tuple[str, Tensor, bool]:  # pyright: ignore
        if not isinstance(request, dict):
            raise HTTPException(422, "Expected a JSON object.")
        asked: dict[str, Any] = dict(request)
        stream, learn = str(asked.pop("stream", "")), asked.pop("update", True)
        if not isinstance(learn, bool):
            raise HTTPException(422, f"Found {learn!r} for update. Expected true or false.")
        with _Told():
            return stream, self._host.reader.parsed(asked), learn

    def predict(self, x: tuple[str, Tensor, bool]) -> Answer:
        stream, batch, learn = x
        with _Told():
            return self._host.answer(stream, batch, learn=learn)

    def encode_response(self, output: Answer) -> dict[str, Any]:
        return json.loads(as_json(output))


class _Told:
    """Refusals as LitServe passes them on: status and detail, but no Retry-After."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refused):
            raise HTTPException(error.status, error.body()["detail"]) from error


def server(source: tuple[str, str | None], settings: Settings, *, workers: int = 2, **options: Any) -> Any:
    """A LitServe server, which `run(port=..., num_api_servers=1)` starts.

    Arguments: `source`, name and weights of the model, as `acclimate.models.load_model` takes them, for each worker;
    `settings`, with a `state_dir`; `workers`, processes; `options`, further ones of `litserve.LitServer`. ImportError
    without LitServe.

    At most `limits.queue` requests are inside each of its HTTP servers (503 beyond), of at most `limits.body_bytes`
    (413), for `limits.deadline` seconds (504).
    """
    litserve: Any = require("litserve", "The recipe", "litserve")
    limits = settings.limits
    return litserve.LitServer(
        Streams(source, settings),
        accelerator="cpu",
        workers_per_device=workers,
        timeout=limits.deadline,
        middlewares=[(Bounded, {"limits": limits}), (BodyLimit, {"limits": limits})],
        **options,
    )
