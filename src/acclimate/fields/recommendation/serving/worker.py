"""A process that holds one member and answers for it."""

from __future__ import annotations

import logging
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Listener
from pathlib import Path

import torch
from torch import Tensor, nn

from acclimate.fields.recommendation.merging.folder import load_member
from acclimate.fields.recommendation.serving.wire import Wire, read_question, write_answer, write_failure

__all__ = ["READY", "answer_over", "answer_to", "listen", "work"]

_log = logging.getLogger(__name__)

READY = b"ready"
"""What a worker sends first."""


def work(path: str, wire: Wire) -> None:
    """Answer for the member of a file until the other end closes. Computes with one thread."""
    torch.set_num_threads(1)
    answer_over(load_member(path), wire)


def listen(path: str | Path, host: str, port: int, key: bytes) -> None:
    """Answer for the member of a file at an address, one panel after another, for panels that know the key.

    Numbers alone come in, never objects. The key is proved by HMAC; what is sent is not encrypted.
    """
    torch.set_num_threads(1)
    model = load_member(path)
    with Listener((host, port), authkey=key) as listener:
        while True:
            try:
                wire = listener.accept()
            except (AuthenticationError, EOFError, OSError) as error:
                _log.warning("a caller was not let in: %s", error)
                continue
            with wire:
                answer_over(model, wire)


def answer_over(model: nn.Module, wire: Wire) -> None:
    """Answer what comes until the other end closes. What the model refuses is told, and does not end it."""
    try:
        wire.send_bytes(READY)
    except OSError:
        return
    while True:
        try:
            wire.send_bytes(answer_to(model, wire.recv_bytes()))
        except (EOFError, OSError):
            return


def answer_to(model: nn.Module, question: bytes) -> bytes:
    """Logits for a question, or why there are none."""
    number, ids = read_question(question)
    start = time.perf_counter()
    try:
        logits = _answered(model, ids)
    except Exception as error:
        return write_failure(number, f"{type(error).__name__}: {' '.join(str(error).split())}")
    return write_answer(number, logits, time.perf_counter() - start)


@torch.inference_mode()
def _answered(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(ids).reshape(len(ids))
    if not bool(logits.isfinite().all()):
        raise ValueError("logits that are not finite")
    return logits
