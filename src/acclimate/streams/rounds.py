"""Several streams in a row, several times over."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from acclimate.streams.stream import JSON, STREAM_FORMAT, Batch, Stream

__all__ = ["RoundsStream"]


class RoundsStream(Stream):
    """The parts one after another, and all of them again in each round: a car that comes through the same weathers.

    Arguments:
        name: as in records, tables and plots.
        parts: streams of the same classes, each of known length.
        rounds: how many times all of them, 1 or more.

    Raises:
        ValueError: no parts, parts of different classes, or no rounds.

    >>> from acclimate.streams import open_stream
    >>> parts = [open_stream("digits:continual", size=10, corruptions=[name]) for name in ("fog", "snow")]
    >>> [batch.segment.name for batch in RoundsStream("digits:weather", parts, rounds=2)]
    ['fog', 'snow', 'fog', 'snow']
    """

    def __init__(self, name: str, parts: Sequence[Stream], rounds: int = 1) -> None:
        if not parts:
            raise ValueError(f"The stream {name!r} has no parts; expected at least one.")
        if isinstance(rounds, bool) or rounds < 1:
            raise ValueError(f"rounds is {rounds!r}; expected 1 or more.")
        first = parts[0]
        for part in parts[1:]:
            if part.classes != first.classes:
                raise ValueError(
                    f"The parts of {name!r} name different classes: {first.name!r} has {len(first.classes)}, "
                    f"{part.name!r} has {len(part.classes)}, or another order. One model answers all of them: choose "
                    "parts of the same data."
                )
        sizes = {part.batch_size for part in parts}
        segments = tuple(segment for part in parts for segment in part.segments) * rounds
        super().__init__(name, segments, first.classes, sizes.pop() if len(sizes) == 1 else 0)
        self.parts = tuple(parts)
        self.rounds = rounds

    def __len__(self) -> int:
        return self.rounds * sum(len(part) for part in self.parts)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.parts[0].image_shape

    def place(self, position: int) -> tuple[int, int]:
        """The round of a batch, from 1, and its part, from 0.

        Raises:
            IndexError: the stream has no such batch.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"There is no batch {position} in {self.name!r}; it has {len(self)}.")
        ends = list(accumulate(len(part) for part in self.parts))
        number, within = divmod(position, ends[-1])
        return number + 1, bisect_right(ends, within)

    def __iter__(self) -> Iterator[Batch]:
        position = 0
        for _ in range(self.rounds):
            for part in self.parts:
                for batch in part:
                    yield replace(batch, position=position)
                    position += 1

    def protocol(self) -> dict[str, JSON]:
        return {
            "format": STREAM_FORMAT,
            "setting": "rounds",
            "rounds": self.rounds,
            "parts": [part.protocol() for part in self.parts],
        }

    def fingerprint(self) -> str:
        """SHA-256 over the protocol and the fingerprints of the parts."""
        digest = hashlib.sha256(self._protocol_bytes())
        for part in self.parts:
            digest.update(part.fingerprint().encode())
        return digest.hexdigest()
