"""Members as actors of a Ray cluster, on whichever machine Ray chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from acclimate.fields.recommendation.merging.folder import load_member
from acclimate.fields.recommendation.serving.lane import Worker
from acclimate.fields.recommendation.serving.worker import READY, UNABLE, answer_to, in_words
from acclimate.models.threads import one_thread
from acclimate.streams.shared import require

__all__ = ["actor"]


class _Member:
    """In the actor's process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._model = nn.Module()

    def ready(self) -> bytes:
        try:
            self._model = load_member(self._path)
        except Exception as error:
            return UNABLE + in_words(error).encode()
        return READY

    def answer(self, question: bytes) -> bytes:
        with one_thread():
            return answer_to(self._model, question)


class _RayWire:
    """One question at a time to one actor."""

    def __init__(self, ray: Any, member: Any) -> None:
        self._ray, self._member = ray, member
        self._waiting = member.ready.remote()

    def send_bytes(self, buf: bytes) -> None:
        self._waiting = self._member.answer.remote(buf)

    def recv_bytes(self) -> bytes:
        return self._ray.get(self._waiting)

    def close(self) -> None:
        """Nothing is held."""


def actor(path: str | Path, **options: Any) -> Callable[[], Worker]:
    """For `Panel`: an actor for the member of a file that all nodes can read.

    Arguments: `options`, of `ray.remote`, such as `num_cpus` or `resources`. Ray is started on this machine unless it
    runs. ImportError without it.
    """
    ray: Any = require("ray", "Members as actors", "ray")
    remote = ray.remote(**{"num_cpus": 1, **options})(_Member)

    def start() -> Worker:
        member = remote.remote(str(Path(path).expanduser().absolute()))
        return Worker(_RayWire(ray, member), lambda: ray.kill(member))

    return start
