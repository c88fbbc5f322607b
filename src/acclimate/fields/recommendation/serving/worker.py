"""What holds one member and answers for it."""

from __future__ import annotations

import importlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from pathlib import Path

import torch
from torch import Tensor, nn

from acclimate.fields.recommendation.merging.folder import load_member
from acclimate.fields.recommendation.serving.sockets import admitted, hang_up
from acclimate.fields.recommendation.serving.wire import Wire, read_question, write_answer, write_failure

__all__ = ["READY", "UNABLE", "answer_over", "answer_to", "in_words", "listen", "work"]

_log = logging.getLogger(__name__)

READY = b"ready"
"""What a worker sends first."""

UNABLE = b"unable: "
"""What it sends instead, with the reason, where there is no member to answer for."""


def in_words(error: BaseException) -> str:
    """An error on one line.

    >>> in_words(ValueError("no such id"))
    'ValueError: no such id'
    """
    return ": ".join(part for part in (type(error).__name__, " ".join(str(error).split())) if part)


def work(path: str, wire: Wire, *modules: str) -> None:
    """Answer for the member of a file until the other end closes, or tell why that cannot be. One thread computes."""
    torch.set_num_threads(1)
    try:
        for each in modules:
            importlib.import_module(each)
        model = load_member(path)
    except Exception as error:
        wire.send_bytes(UNABLE + in_words(error).encode())
        return
    answer_over(model, wire)


def listen(path: str | Path, host: str, port: int, key: bytes, *, bound: Callable[[int], None] | None = None) -> None:
    """Answer for the member of a file at an address, for all panels that know the key, until the process ends.

    Numbers alone come in, never objects. The key is proved by HMAC, within five seconds, on both sides; what is sent is
    not encrypted.

    Arguments: `port`, 0 for any that is free; `bound`, called with the port once it listens.
    """
    torch.set_num_threads(1)
    model = load_member(path)
    with socket.create_server((host, port)) as server:
        if bound is not None:
            bound(server.getsockname()[1])
        while True:
            try:
                caller, _ = server.accept()
            except OSError as error:
                _log.warning("a caller could not be heard: %s", error)
                time.sleep(0.1)
                continue
            threading.Thread(target=_welcome, args=(caller, key, model), daemon=True).start()


def _welcome(caller: socket.socket, key: bytes, model: nn.Module) -> None:
    try:
        with admitted(caller, key) as link:
            answer_over(model, link)
    except (AuthenticationError, EOFError, OSError) as error:
        _log.warning("a caller was not let in: %s", in_words(error))
    finally:
        hang_up(caller)


def answer_over(model: nn.Module, wire: Wire) -> None:
    """Answer what comes until the other end closes, or sends what is no question. What the model refuses is told, and
    does not end it."""
    try:
        wire.send_bytes(READY)
        while True:
            wire.send_bytes(answer_to(model, wire.recv_bytes()))
    except (EOFError, OSError):
        return
    except ValueError as error:
        _log.warning("a caller sent what is no question, and is left: %s", error)


def answer_to(model: nn.Module, question: bytes) -> bytes:
    """Logits for a question, or why there are none. ValueError for what is no question."""
    number, ids = read_question(question)
    start = time.perf_counter()
    try:
        logits = _answered(model, ids)
    except Exception as error:
        return write_failure(number, in_words(error))
    return write_answer(number, logits, time.perf_counter() - start)


@torch.inference_mode()
def _answered(model: nn.Module, ids: Tensor) -> Tensor:
    return model(ids).reshape(len(ids))
