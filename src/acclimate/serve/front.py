"""The front of several workers: one address, and behind it the worker that has the stream of a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpcore
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Router

from acclimate.serve.backend import Backend, Reply
from acclimate.serve.bounded import LOOKING, BodyLimit, Bounded
from acclimate.serve.counted import Counted
from acclimate.serve.errors import tell
from acclimate.serve.front_metrics import FrontMetrics
from acclimate.serve.refused import Refused, away
from acclimate.serve.running import run
from acclimate.serve.settings import Settings
from acclimate.serve.slots import SLOTS, worker_of
from acclimate.serve.worker import words_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Front", "serve_processes"]

_STREAMS = "/v1/streams"
_OWN = {"/livez": "livez", "/readyz": "readyz", "/metrics": "metrics", _STREAMS: "listed", "/v1/info": "info"}
_OF_A_STREAM = {
    ("GET", ""): "status",
    ("DELETE", ""): "delete",
    ("GET", "snapshots"): "snapshots",
    ("POST", "snapshots"): "keep",
    **{("POST", verb): verb for verb in ("predict", "rollback", "reset", "freeze")},
}
_OF_ONE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)


def serve_processes(settings: Settings, processes: int, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """As `acclimate.serve.running.serve`, with so many processes that share the streams, 2..64.

    Each of them loads `settings.source` and answers for the streams of its slots, within limits of its own. ValueError
    without a source or a state folder; raises what kept a worker from starting.
    """
    if not 1 < processes <= SLOTS:
        raise ValueError(f"found {processes} processes, expected 2..{SLOTS}. For a single one use serve.")
    if settings.state_dir is None or settings.source is None:
        raise ValueError(
            f"found {processes} processes without a state folder or a source, expected both: workers share nothing "
            "else. Give --state-dir DIR, and a model that every process can load by name."
        )
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError("several processes need Unix sockets, which this system lacks. Serve with one process.")
    front = Front(settings, processes)
    run(front, front, host=host, port=port)


class Front:
    """An ASGI application that passes requests on, and keeps the workers alive while it runs."""

    def __init__(self, settings: Settings, processes: int) -> None:
        self._limits = limits = settings.limits
        self._folder = Path(tempfile.mkdtemp(prefix="acclimate-"))  # nobody else's
        self._workers = [
            Backend(
                number,
                self._folder / str(number),
                words_of(replace(settings, share=(number, processes))),
                limits.deadline + 5.0,
            )
            for number in range(processes)
        ]
        self.metrics = FrontMetrics(self._workers)
        self._end: float | None = None
        self._own = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics, _STREAMS: self._listed}
        self._bounded = Bounded(self._answer, limits)
        router = Router(redirect_slashes=False, default=self._admit, lifespan=self._life)
        self._app = BodyLimit(Counted(router, self.metrics.requests, _endpoint), limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    # -- life ------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _life(self, app: Any) -> AsyncGenerator[None]:
        keeping = [asyncio.create_task(worker.keep()) for worker in self._workers]
        yield
        self.drain()
        left = max(self._limits.drain / 4, (self._end or 0.0) - time.monotonic())
        await asyncio.gather(*(worker.end(left) for worker in self._workers))
        for task in keeping:
            task.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def failure(self) -> Exception | None:
        """What keeps a worker from starting."""
        return next((worker.failure for worker in self._workers if worker.failure is not None), None)

    @property
    def asked(self) -> int:
        """Requests that are taken and not answered yet."""
        return self._bounded.asked

    def drain(self) -> None:
        """Take no more requests."""
        if self._end is None:
            self._end = time.monotonic() + self._limits.drain

    @property
    def left(self) -> float:
        """Seconds to answer in, once told to end; a quarter of the time is left for workers to write."""
        end = self._end or time.monotonic() + self._limits.drain
        return max(0.0, end - time.monotonic() - self._limits.drain / 4)

    @property
    def drained(self) -> bool:
        """Whether all that was taken is answered, or has waited for too long."""
        return self._end is not None and not (self.asked and self.left)

    # -- what it answers itself ------------------------------------------------------------------------

    async def _livez(self) -> Response:
        return JSONResponse({"live": True})

    async def _readyz(self) -> Response:
        reason = self._reason()
        return JSONResponse({"ready": not reason, "reason": reason}, 503 if reason else 200)

    def _reason(self) -> str:
        if self._end is not None:
            return "the server is about to end"
        return next((worker.reason for worker in self._workers if not worker.ready), "")

    async def _metrics(self) -> Response:
        asked = (worker.ask("GET", b"/metrics", []) for worker in self._workers)
        replies = await asyncio.gather(*asked, return_exceptions=True)
        texts = {
            str(worker.number): reply.content.decode()
            for worker, reply in zip(self._workers, replies, strict=True)
            if not isinstance(reply, BaseException)
        }
        return Response(self.metrics.joined(texts), media_type=CONTENT_TYPE_LATEST)

    async def _listed(self) -> Response:
        replies = await asyncio.gather(*(self._ask(worker, "GET", _STREAMS.encode(), []) for worker in self._workers))
        lines = [line for reply in replies for line in json.loads(reply.content)["streams"]]
        return JSONResponse({"streams": sorted(lines, key=lambda line: line["stream"])})

    # -- what it passes on -----------------------------------------------------------------------------

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._end is not None and scope["method"] not in LOOKING:
            await tell(_away(self._reason()))(scope, receive, send)
        else:
            await self._bounded(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        own = self._own.get(scope["path"]) if request.method == "GET" else None
        try:
            response = await (self._passed(request) if own is None else own())
        except Refused as refused:
            response = tell(refused)
        await response(scope, receive, send)

    async def _passed(self, request: Request) -> Response:
        scope = request.scope
        body = b"" if request.method in LOOKING else await request.body()
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [(k, v) for k, v in scope["headers"] if k not in _OF_ONE_CONNECTION and k != b"content-length"]
        reply = await self._ask(self._worker(scope["path"]), request.method, target, headers, body)
        response = Response(reply.content, reply.status)
        told = [(k.lower(), v) for k, v in reply.headers]
        response.raw_headers = [(k, v) for k, v in told if k not in _OF_ONE_CONNECTION and k != b"date"]
        return response

    def _worker(self, path: str) -> Backend:
        """The one that has the stream of a path, or any that is ready where it names none."""
        if path.startswith(f"{_STREAMS}/"):
            stream = path.removeprefix(f"{_STREAMS}/").partition("/")[0]
            return self._workers[worker_of(stream, len(self._workers))]
        return next((worker for worker in self._workers if worker.ready), self._workers[0])

    async def _ask(
        self, worker: Backend, verb: str, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> Reply:
        if not worker.ready:
            raise _away(worker.reason)
        try:
            return await worker.ask(verb, target, headers, body)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout) as error:
            raise _away(f"worker {worker.number} cannot be reached") from error
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            late = isinstance(error, httpcore.TimeoutException)
            what = f"worker {worker.number}, which {'does not answer' if late else 'ended before it answered'}"
            raise (_away(what) if verb in LOOKING else _broken(what)) from error


def _endpoint(scope: Scope) -> str:
    """What a request is counted by: the name of the function that answers it in a worker."""
    path, verb = str(scope["path"]), str(scope["method"])
    if path.startswith(f"{_STREAMS}/"):
        _, _, last = path.removeprefix(f"{_STREAMS}/").partition("/")
        return _OF_A_STREAM.get((verb, last), "none")
    return _OWN.get(path, "none") if verb == "GET" else "none"


def _away(reason: str) -> Refused:
    return away(reason, "a worker that is ready", "Try again later; the streams of the others are answered.")


def _broken(what: str) -> Refused:
    return Refused(
        502,
        found=f"{what}.",
        expected="an answer",
        do="The request may have been learned: compare the stream's version before you repeat it.",
    )
