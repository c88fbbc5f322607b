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
    def close(self) -> None: ...


def write_question(number: int, ids: Tensor) -> bytes:
    """Whole ids `[B, F]` under a number, from any device."""
    rows, fields = ids.shape
    plain = ids.to("cpu", torch.int64).contiguous().numpy()
    return _QUESTION.pack(number, rows, fields) + plain.astype("<i8").tobytes()


def read_question(data: bytes) -> tuple[int, Tensor]:
    """The number and ids int64 `[B, F]`; ValueError for what `write_question` did not write."""
    if len(data) < _QUESTION.size:
        raise ValueError(f"found a question of {len(data)} bytes, expected {_QUESTION.size} or more.")
    number, rows, fields = _QUESTION.unpack_from(data)
    given, expected = len(data) - _QUESTION.size, 8 * rows * fields
    if given != expected:
        raise ValueError(f"found {given} bytes of ids for {rows} rows of {fields} fields, expected {expected}.")
    ids = np.frombuffer(data[_QUESTION.size :], dtype="<i8").reshape(rows, fields)
    return number, torch.from_numpy(ids.astype(np.int64))


def write_answer(number: int, logits: Tensor, seconds: float) -> bytes:
    """Float32 `[B]`, and how long they took."""
    return _ANSWER.pack(number, _GIVEN, seconds) + logits.to(torch.float32).contiguous().numpy().astype("<f4").tobytes()


def write_failure(number: int, reason: str) -> bytes:
    """Why there are none."""
    return _ANSWER.pack(number, _FAILED, 0.0) + reason.encode()


def read_answer(data: bytes) -> tuple[int, Tensor | str, float]:
    """The number, logits or why there are none, and the seconds they took; ValueError for what is no answer."""
    if len(data) < _ANSWER.size:
        raise ValueError(f"found an answer of {len(data)} bytes, expected {_ANSWER.size} or more.")
    number, kind, seconds = _ANSWER.unpack_from(data)
    rest = data[_ANSWER.size :]
    if kind == _FAILED:
        return number, rest.decode(errors="replace"), seconds
    if kind != _GIVEN or len(rest) % 4:
        raise ValueError(f"found an answer of kind {kind} with {len(rest)} bytes, expected kind 0 and float32 numbers.")
    return number, torch.from_numpy(np.frombuffer(rest, "<f4").astype(np.float32)), seconds
