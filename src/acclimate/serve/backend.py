"""One worker as its front sees it: a process that is kept alive, and a way to ask it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpcore

__all__ = ["Backend", "Reply"]

_log = logging.getLogger(__name__)

_LOOK = 0.05
_PAUSE, _LONGEST = 0.2, 30.0
_LASTING = 60.0

Headers = Iterable[tuple[bytes, bytes]]
Reply = httpcore.Response


class Backend:
    """Starts a worker, and starts it again whenever it ends.

    Arguments: `number`, of the worker; `socket`, the path that it listens at; `words`, what it is told, JSON values;
    `patience`, seconds that an answer may take. The pipe that tells the words stays open, and its end tells the worker
    to finish: it does so as well when this process is killed.
    """

    def __init__(self, number: int, socket: Path, words: dict[str, Any], patience: float) -> None:
        self.number, self.starts = number, 0
        self.ready, self.reason = False, f"worker {number} is starting"
        self.failure: Exception | None = None
        self._socket, self._words, self._patience = socket, words, patience
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False
        self._pool = httpcore.AsyncConnectionPool(uds=str(socket), max_connections=None, keepalive_expiry=5.0)

    async def keep(self) -> None:
        """Keep it alive until `end`. A worker that ends before it has ever been ready is a `failure`."""
        pause, was_ready = _PAUSE, False
        while not self._ending:
            begun = time.monotonic()
            process = await self._start()
            watching = asyncio.create_task(self._watch())
            code = await process.wait()
            watching.cancel()
            was_ready |= self.ready
            self.ready, self.reason = False, f"worker {self.number} has ended and is started again"
            if self._ending:
                return
            if not was_ready:
                self.failure = ValueError(f"worker {self.number} cannot start; its message stands above.")
                return
            pause = _PAUSE if time.monotonic() - begun > _LASTING else pause
            _log.error("worker %d ended with %d; it starts again in %g seconds", self.number, code, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    async def _start(self) -> asyncio.subprocess.Process:
        self._socket.unlink(missing_ok=True)
        command = (sys.executable, "-m", "acclimate.serve.worker", str(self._socket))
        # a session of its own: what the terminal tells its foreground, the front tells its workers in its own time
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, start_new_session=True)
        self._process, self.starts = process, self.starts + 1
        with contextlib.suppress(ConnectionError):
            self._tell(json.dumps(self._words))
        return process

    def _tell(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _watch(self) -> None:
        """Notice when it gets ready, and when it is no longer."""
        while True:
            try:
                reply = await self.ask("GET", b"/readyz", [])
                told = json.loads(reply.content)
                self.ready, self.reason = reply.status == 200, f"worker {self.number}: {told['reason']}"
            except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ValueError, KeyError):
                pass
            await asyncio.sleep(_LOOK if not self.ready else 1.0)

    async def ask(self, verb: str, target: bytes, headers: Headers, body: bytes = b"") -> Reply:
        """Its answer, read whole. Raises what httpcore does: ConnectError if it was not asked at all."""
        url = httpcore.URL(scheme=b"http", host=b"worker", port=None, target=target)
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), self._patience)
        extensions = {"timeout": timeout}
        return await self._pool.request(verb, url, headers=list(headers), content=body, extensions=extensions)

    async def end(self, seconds: float) -> None:
        """Have it finish and write within so many seconds, and wait for its end; then it is killed."""
        self._ending = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._tell(f"{seconds:.3f}")
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), seconds + 5.0)
        except TimeoutError:
            _log.error("worker %d has not ended in time and is killed", self.number)
            process.kill()
            await process.wait()
        if process.returncode and self.failure is None:
            self.failure = OSError(f"worker {self.number} ended with {process.returncode}; its message stands above.")
        await self._pool.aclose()
