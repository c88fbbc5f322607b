"""One stream: its published versions, and what has happened to it."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from acclimate.serve.history import History
from acclimate.serve.packed import Packed
from acclimate.serve.refused import Refused
from acclimate.serve.settings import Limits

__all__ = ["NAME", "Counts", "Log", "Stream", "Version", "absent", "check_name", "check_room"]

NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
"""What streams and kept versions may be called."""


def check_name(name: str) -> None:
    """Refuse an id that no stream can have."""
    if not re.fullmatch(NAME, name):
        raise Refused(
            422,
            found=f"the stream id {name[:80]!r}.",
            expected="1 to 64 letters, digits, dots, dashes or underscores, no dot first",
            do="Choose another id.",
        )


def check_room(streams: int, limits: Limits) -> None:
    """Refuse one more stream where there are as many as may be."""
    if streams >= limits.streams:
        raise Refused(
            503,
            found=f"{streams} streams.",
            expected=f"at most {limits.streams}",
            do="Delete one that is done, or raise --max-streams.",
            retry_after=60,
        )


def absent(name: str) -> Refused:
    """What whoever asks for a stream is told that does not exist."""
    return Refused(
        404,
        found=f"no stream {name[:80]!r}.",
        expected="one that has answered a request",
        do="See the list of streams.",
    )


Log = Callable[[Mapping[str, Any]], None]
"""Takes one line of the audit log."""


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A published state. Neither the number nor the state ever changes, and no number is given twice in a stream."""

    number: int
    state: Packed


@dataclass(slots=True)
class Counts:
    """Since the server started."""

    requests: int = 0
    batches: int = 0
    rows: int = 0
    held: int = 0
    updates: int = 0
    idle: int = 0
    refused: int = 0
    dropped: int = 0
    rollbacks: int = 0
    resets: int = 0


class Stream:
    """What a stream is told by is its current version; whoever reads it sees one version or the next, never between.

    Who changes it takes `lock`, and may keep it as long as the disk takes for a line of the log. Who looks at it takes
    none: what it looks at is never changed, but replaced.

    Arguments: `first`, the state of a fresh adaptation; `log`, takes what happens before it shows; `published`, is told
    of every new version; `fetch`, gives the state of a version in `stored` that is not in memory.
    """

    def __init__(
        self,
        name: str,
        first: Packed,
        limits: Limits,
        log: Log,
        published: Callable[[Stream], None] = lambda stream: None,
        fetch: Callable[[int], Packed] | None = None,
    ) -> None:
        self.name = name
        self.lock, self.writing = threading.RLock(), threading.Lock()
        self.current = Version(0, first)
        self.next = 1
        self.kept: dict[int, Version] = {0: self.current}
        self.names: dict[str, int] = {}
        self.frozen = False
        self.gone = self.dropped = False
        self.note: str | None = None
        self.counts = Counts()
        self.history = History(limits.history)
        self.signals: dict[str, float] = {}
        self.held_at_source = False
        self.credit = 0.0
        self.unwritten = 0
        self.stored: set[int] = set()
        self._first, self._limits, self._log = first, limits, log
        self._published, self._fetch = published, fetch

    def log(self, event: str, **values: Any) -> None:
        """One line of the audit log; none for a stream that is gone."""
        with self.lock:
            if not self.gone:
                self._log({"time": round(time.time(), 6), "event": event, **values})

    def learned(self, base: Version, state: Packed | None, **line: Any) -> Version | None:
        """Publish the state after an update of `base`, None for the very same state.

        None where it came too late: something else has been published since, or the stream is frozen or gone.
        """
        with self.lock:
            late = self.current is not base or self.frozen or self.gone
            if late:
                line["outcome"] = "superseded"
            after = None if late or state is None else state
            digest = {} if after is None else {"state": after.digest()}
            number = base.number if after is None else self.next
            self.log("update", before=base.number, after=None if late else number, **digest, **line)
            if late:
                return None
            return base if after is None else self._publish(after)

    def _publish(self, state: Packed) -> Version:
        version = Version(self.next, state)
        self.next += 1
        named = set(self.names.values())
        loose = [number for number in self.kept if number not in named]
        spare = loose[: max(0, len(loose) + 1 - self._limits.kept)]
        kept = {number: each for number, each in self.kept.items() if number not in spare}
        self.kept = {**kept, version.number: version}
        self.current = version
        self.unwritten += 1
        self._published(self)
        return version

    def rollback(self, number: int) -> Version:
        """Publish a kept version's state again, under a number of its own."""
        with self._commanded():
            state = self._kept(number)
            self._command("rollback", state, to=number)
            self.counts.rollbacks += 1
            return self._publish(state)

    def _kept(self, number: int) -> Packed:
        found, do = self.kept.get(number), "Choose one that is kept, or reset the stream."
        if found is not None:
            return found.state
        kept = ", ".join(map(str, sorted(self.kept.keys() | self.stored)))
        if number not in self.stored or self._fetch is None:
            what = f"version {number} of stream {self.name} is not kept."
            raise Refused(404, found=what, expected=f"one of {kept}", do=do)
        try:
            return self._fetch(number)
        except ValueError as error:
            what = f"the file of version {number} cannot be used: {error}"
            raise Refused(409, found=what, expected=f"a whole one among {kept}", do=do) from error

    def reset(self) -> Version:
        """Publish the state of a fresh adaptation."""
        with self._commanded():
            self._command("reset", self._first)
            self.counts.resets += 1
            return self._publish(self._first)

    def _command(self, event: str, state: Packed, **line: Any) -> None:
        self.log(event, before=self.current.number, after=self.next, state=state.digest(), **line)
        self.history.add({"time": time.time(), "version": self.next})

    def freeze(self, frozen: bool) -> None:
        """Learn nothing from now on, or learn again. An update that runs now is not published."""
        with self._commanded():
            self.log("freeze", frozen=frozen, before=self.current.number)
            self.frozen = frozen

    def keep(self, name: str) -> Version:
        """Keep the current version under a name, which may have had another before."""
        with self._commanded():
            if name not in self.names and len(self.names) >= self._limits.named:
                raise Refused(
                    409,
                    found=f"stream {self.name} has {len(self.names)} named versions already.",
                    expected=f"at most {self._limits.named}",
                    do=f"Take one of the names again: {', '.join(self.names)}.",
                )
            self.log("keep", name=name, before=self.current.number)
            self.names = {**self.names, name: self.current.number}
            return self.current

    def end(self) -> None:
        """Publish nothing any more."""
        with self.lock:
            self.gone = True

    @contextmanager
    def _commanded(self) -> Iterator[None]:
        """The lock, for a verb. Refused where the stream is gone."""
        with self.lock:
            if self.gone:
                raise absent(self.name)
            yield

    @property
    def bytes(self) -> int:
        """Of all kept versions; states that several of them share count once."""
        return sum(state.bytes for state in {id(v.state): v.state for v in self.kept.values()}.values())

    @property
    def condition(self) -> str:
        """`frozen`, `held at source` or `adapting`."""
        return "frozen" if self.frozen else "held at source" if self.held_at_source else "adapting"

    def line(self) -> dict[str, Any]:
        """Its status in one line."""
        counts = self.counts
        return {
            "stream": self.name,
            "version": self.current.number,
            "state": self.condition,
            "batches": counts.batches,
            "updates": counts.updates,
            "refused": counts.refused,
            "rollbacks": counts.rollbacks,
            "held_share": counts.held / counts.rows if counts.rows else 0.0,
        }

    def status(self) -> dict[str, Any]:
        """Everything about it, as JSON values."""
        counts = self.counts
        return {
            **self.line(),
            "frozen": self.frozen,
            "held_at_source": self.held_at_source,
            "requests": counts.requests,
            "rows": counts.rows,
            "idle": counts.idle,
            "dropped": counts.dropped,
            "resets": counts.resets,
            "bytes": self.bytes,
            "note": self.note,
            "signals": {name: value if math.isfinite(value) else None for name, value in self.signals.items()},
            "history": self.history.points(),
        }

    def snapshots(self) -> list[dict[str, Any]]:
        """Versions that can be returned to, oldest first; `bytes` is None for those that are only in the folder."""
        kept, stored, current = self.kept, self.stored, self.current.number
        names = {number: name for name, number in self.names.items()}
        return [
            {
                "version": number,
                "name": names.get(number),
                "current": number == current,
                "stored": number in stored,
                "bytes": kept[number].state.bytes if number in kept else None,
            }
            for number in sorted(kept.keys() | stored)
        ]
