"""What goes between a panel and its workers: ids one way, logits the other, as plain numbers."""

from __future__ import annotations

import struct
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["Wire", "read_answer", "read_question", "write_answer", "write_failure", "write_question"]

_QUESTION = struct.Struct("<QII")
_ANSWER = struct.Struct("<QBd")
_GIVEN, _FAILED = 0, 1


class Wire(Protocol):
    """What carries them, such as a `multiprocessing` connection."""

    def send_bytes(self, buf: bytes) -> None: ...
    def recv_bytes(self) -> bytes: ...
    def poll(self, timeout: float) -> bool: ...
    def close(self) -> None: ...


def write_question(number: int, ids: Tensor) -> bytes:
    """Ids int64 `[B, F]` under a number."""
    rows, fields = ids.shape
    return _QUESTION.pack(number, rows, fields) + ids.to(torch.int64).contiguous().numpy().astype("<i8").tobytes()


def read_question(data: bytes) -> tuple[int, Tensor]:
    number, rows, fields = _QUESTION.unpack_from(data)
    ids = np.frombuffer(data, dtype="<i8", offset=_QUESTION.size).reshape(rows, fields)
    return number, torch.from_numpy(ids.astype(np.int64))


def write_answer(number: int, logits: Tensor, seconds: float) -> bytes:
    """Float32 `[B]`, and how long they took."""
    return _ANSWER.pack(number, _GIVEN, seconds) + logits.to(torch.float32).contiguous().numpy().astype("<f4").tobytes()


def write_failure(number: int, reason: str) -> bytes:
    return _ANSWER.pack(number, _FAILED, 0.0) + reason.encode()


def read_answer(data: bytes) -> tuple[int, Tensor | str, float]:
    """The number, logits or why there are none, and the seconds they took."""
    number, kind, seconds = _ANSWER.unpack_from(data)
    if kind == _FAILED:
        return number, data[_ANSWER.size :].decode(), seconds
    return number, torch.from_numpy(np.frombuffer(data, "<f4", offset=_ANSWER.size).astype(np.float32)), seconds
