"""Connections to other machines: both sides prove that they know the key, within a time limit."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any, TypeAlias

__all__ = ["PATIENCE", "admitted", "called", "hang_up"]

PATIENCE = 5.0
"""Seconds that a connection, and the proof of the key, may take each."""

Link: TypeAlias = "Connection[Any, Any]"


def called(host: str, port: int, key: bytes, patience: float = PATIENCE) -> tuple[Link, socket.socket]:
    """Call one that listens. OSError (TimeoutError among them), EOFError or AuthenticationError where that fails."""

    def prove(link: Link) -> None:
        answer_challenge(link, key)
        deliver_challenge(link, key)

    caller = socket.create_connection((host, port), timeout=patience)
    return _proved(caller, prove, patience), caller


def admitted(caller: socket.socket, key: bytes, patience: float = PATIENCE) -> Link:
    """Let in who called. Errors as above."""

    def prove(link: Link) -> None:
        deliver_challenge(link, key)
        answer_challenge(link, key)

    return _proved(caller, prove, patience)


def hang_up(line: socket.socket) -> None:
    """Whoever reads or writes at either end gets an error at once."""
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()


def _proved(line: socket.socket, prove: Callable[[Link], None], patience: float) -> Link:
    line.settimeout(None)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link: Link = Connection(os.dup(line.fileno()))
    late = threading.Event()

    def cut() -> None:
        late.set()
        hang_up(line)

    timer = threading.Timer(patience, cut)
    timer.daemon = True
    timer.start()
    try:
        prove(link)
    except (AuthenticationError, EOFError, OSError) as error:
        link.close()
        hang_up(line)
        if late.is_set():
            raise TimeoutError(f"the other end did not prove that it knows the key within {patience:g} s") from error
        raise
    finally:
        timer.cancel()
    return link
