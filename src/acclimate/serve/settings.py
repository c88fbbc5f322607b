"""What a server is told when it starts: how it adapts, and the bound of everything that could grow."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from acclimate.core.config import at_least, one_of, positive, whole
from acclimate.core.guard import Guard
from acclimate.core.method import Method
from acclimate.serve.slots import slots_of

__all__ = ["Limits", "Settings", "UpdateMode", "is_loopback"]

_SECONDS = ("update_seconds", "deadline", "drain")

UpdateMode = Literal["background", "inline", "off"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds. Whole numbers of at least 1 where nothing else is said; ValueError otherwise."""

    body_bytes: int = 32 << 20
    """Of one request's body, and of the tensor that it holds when it is decoded."""
    rows: int = 1024
    """Of one request's batch, and of a batch merged from several."""
    pixels: int = 1 << 24
    """Of one image, before it is decoded."""
    streams: int = 10_000
    """Streams that exist at once."""
    stream_queue: int = 16
    """Requests of one stream that wait for their answer."""
    queue: int = 256
    """Requests of all streams that wait for their answer, or whose body is being read."""
    stream_updates: int = 4
    """Batches of one stream that wait to be learned; further ones are answered and not learned."""
    updates: int = 64
    """Batches of all streams that wait to be learned."""
    kept: int = 4
    """Versions of one stream that can be returned to, besides those with a name."""
    named: int = 8
    """Versions of one stream kept under a name."""
    state_bytes: int = 256 << 20
    """Of the state of one stream. A state beyond it is not published."""
    history: int = 128
    """Points of one stream's history, for plots."""
    audit_bytes: int = 16 << 20
    """Of one file of a stream's audit log."""
    audit_files: int = 8
    """Files of a stream's audit log; the oldest goes first."""
    update_seconds: float = 60.0
    """Of one update in a process; it is then given up and leaves no trace."""
    deadline: float = 30.0
    """Seconds from a request's arrival to its answer."""
    drain: float = 20.0
    """Seconds that a server which was told to end takes at most to finish what it has begun. Then it writes."""

    def __post_init__(self) -> None:
        counts = {name: value for name, value in vars(self).items() if name not in _SECONDS}
        whole(1, **counts)
        positive(**{name: getattr(self, name) for name in _SECONDS})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server adapts and what it keeps.

    Arguments:
        method: a name, a preset or an instance, as in `acclimate.adapt`.
        guard: what holds answers at the source and undoes updates, as in `acclimate.adapt`; None for none.
        seed: of the private generators of every stream.
        update: learn in the "background" (answers come from the version at hand), "inline" (a request is answered and
            learned in one step) or "off".
        update_budget: milliseconds of learning that one batch may cost on average, None for no bound. Where an update
            takes longer, only so many batches are learned as keep to it; every one is answered.
        updater: where background updates run: in a "process" of their own, which needs `source`, or in a "thread".
        source: name and weights of the model, as `acclimate.models.load_model` takes them, for that process.
        workers: threads that answer.
        threads: threads of torch in each of them, and in the updater.
        batch_window: milliseconds that a request waits for others of its stream, to be answered in one forward with
            them. 0: each is answered by itself. With batch statistics a merged answer is another than a lone one.
        state_dir: folder that keeps versions and audit logs; None keeps them in memory only.
        share: which worker this is and of how many over the same folder, as `acclimate.serve.slots.slots_of`; it
            answers for its share of the streams and for no others.
        persist_every: updates after which a stream's version is written.
        persist_seconds: seconds after which a changed stream is written at the latest.
        token: opens the control verbs; None keeps them shut.
        limits: the bound of everything else.
    """

    method: str | Method = "tent"
    guard: str | Guard | None = "default"
    seed: int = 0
    update: UpdateMode = "background"
    update_budget: float | None = None
    updater: Literal["thread", "process"] = "thread"
    source: tuple[str, str | None] | None = None
    workers: int = 1
    threads: int = 1
    batch_window: float = 0.0
    state_dir: Path | None = None
    share: tuple[int, int] = (0, 1)
    persist_every: int = 10
    persist_seconds: float = 5.0
    token: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        one_of("background", "inline", "off", update=self.update)
        one_of("thread", "process", updater=self.updater)
        slots_of(*self.share)
        whole(1, workers=self.workers, threads=self.threads, persist_every=self.persist_every)
        at_least(0, batch_window=self.batch_window)
        positive(persist_seconds=self.persist_seconds)
        if self.update_budget is not None:
            positive(update_budget=self.update_budget)
        if self.updater == "process" and self.update == "background" and self.source is None:
            raise ValueError(
                'found updater="process" and no source, expected a model that another process can load by name. '
                'Give source=("file.py:function", None), or updater="thread".'
            )
        if self.token is not None and len(self.token) < 16:
            raise ValueError(f"the token has {len(self.token)} characters, expected 16 or more. Draw a random one.")


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach that address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
