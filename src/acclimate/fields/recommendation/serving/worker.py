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

__all__ = ["answer_over", "listen", "work"]

_log = logging.getLogger(__name__)


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
        wire.send_bytes(b"ready")
    except OSError:
        return
    while True:
        try:
            data = wire.recv_bytes()
        except (EOFError, OSError):
            return
        number, ids = read_question(data)
        start = time.perf_counter()
        try:
            logits = _answered(model, ids)
        except Exception as error:
            told = write_failure(number, f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            told = write_answer(number, logits, time.perf_counter() - start)
        try:
            wire.send_bytes(told)
        except OSError:
            return


@torch.inference_mode()
def _answered(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(ids).reshape(len(ids))
    if not bool(logits.isfinite().all()):
        raise ValueError("logits that are not finite")
    return logits
