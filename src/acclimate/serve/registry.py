"""The streams that exist, by name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from acclimate.serve.settings import Limits
from acclimate.serve.stream import Stream, absent, check_name, check_room

__all__ = ["Registry", "Streams"]


class Streams(Protocol):
    """Where those who answer have their streams from."""

    def find(self, name: str) -> Stream:
        """The stream of that name, or a new one, which does not exist until it enters."""
        ...

    def enter(self, stream: Stream) -> None:
        """Let a stream exist that has answered. Raises Refused where there is no room for another one."""
        ...


class Registry:
    """A name belongs to one stream until that leaves, which it does when nothing of it is left.

    Arguments: `make`, gives a new stream, or raises Refused for a name that cannot be one here.
    """

    def __init__(self, make: Callable[[str], Stream], limits: Limits) -> None:
        self._make, self._limits = make, limits
        self._lock = threading.Lock()
        self._streams: dict[str, Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def all(self) -> list[Stream]:
        """Every one, by name."""
        with self._lock:
            return [stream for _, stream in sorted(self._streams.items())]

    def get(self, name: str) -> Stream:
        """One that exists. Raises Refused."""
        stream = self._streams.get(name)
        if stream is None:
            raise absent(name)
        return stream

    def check(self, name: str) -> None:
        """Raises Refused for a name under which nothing can be answered."""
        if name not in self._streams:
            check_name(name)
            check_room(len(self), self._limits)
            self._make(name)

    def find(self, name: str) -> Stream:
        """As `Streams`."""
        return self._streams.get(name) or self._make(name)

    def enter(self, stream: Stream) -> None:
        """As `Streams`. One that has left meanwhile stays away."""
        if self._streams.get(stream.name) is stream:
            return
        with self._lock:
            if not stream.gone:
                check_room(len(self), self._limits)
                self._streams[stream.name] = stream

    def take_up(self, stream: Stream) -> None:
        """Let a stream exist that did before, however many there are."""
        with self._lock:
            self._streams[stream.name] = stream

    def leave(self, stream: Stream) -> bool:
        """Give its name free. False where that has been done before."""
        with self._lock:
            there = self._streams.get(stream.name) is stream
            if there:
                del self._streams[stream.name]
            return there
