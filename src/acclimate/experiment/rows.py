"""The lines of a record, typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchRow", "Header", "UnitRow", "pack_bits", "unpack_bits"]


def pack_bits(flags: Sequence[bool] | NDArray[np.bool_]) -> str:
    """Booleans as hexadecimal digits, the first one in the highest bit; zeros fill the last byte.

    >>> pack_bits([True, False, False, True])
    '90'
    """
    return np.packbits(np.asarray(flags, dtype=bool)).tobytes().hex()


def unpack_bits(text: str, count: int) -> NDArray[np.bool_]:
    """The inverse of `pack_bits`.

    >>> unpack_bits("90", 4).tolist()
    [True, False, False, True]
    """
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=count).astype(bool)


@dataclass(frozen=True, kw_only=True)
class Header:
    """The first line of a record: everything needed to know what the numbers are, and to repeat them.

    Arguments:
        created: local time with its offset.
        command: the command line; empty for a run from Python.
        request: the options of the command line, which `--resume` builds the run from.
        stream: `name`, `protocol`, `fingerprints` by seed, `batches` in a pass, `segments`; and, not in older records,
            the `domains`, which of them is the `source`, and the `composition`.
        model: `name`, `class`, `fingerprint`, `parameters`.
        methods: for each label its `config` with all settings, the `cost` it states, and where the run gave it images
            of the `source`: which; the settings of its `guard`, where it had one.
        answer: whether answers come `before` or `after` the update.
        reset: when methods are reset.
        seeds: of the stream and of the methods' generators.
        environment: versions, machine, threads, device.
        pace: forwards F between the arrivals of two batches; None where the stream waits for each method.
    """

    created: str
    command: str
    request: Mapping[str, Any]
    stream: Mapping[str, Any]
    model: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    answer: str
    reset: str
    seeds: tuple[int, ...]
    environment: Mapping[str, Any]
    pace: float | None = None

    def differences(self, other: Header) -> list[str]:
        """What keeps two headers from being the same experiment; time, command and machine do not."""
        pairs: list[tuple[str, Any, Any]] = [
            ("stream", self.stream["fingerprints"], other.stream["fingerprints"]),
            ("source model", self.model["fingerprint"], other.model["fingerprint"]),
            ("methods", _without_source(self.methods), _without_source(other.methods)),
            ("source images", _sources(self.methods), _sources(other.methods)),
            ("answer order", self.answer, other.answer),
            ("seeds", list(self.seeds), list(other.seeds)),
            ("pace", self.pace, other.pace),
        ]
        return [name for name, mine, theirs in pairs if mine != theirs]


def _without_source(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {label: {k: v for k, v in about.items() if k != "source"} for label, about in methods.items()}


def _sources(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {label: about["source"] for label, about in methods.items() if "source" in about}


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRow:
    """One batch, answered by one method.

    `wrong` has one bit for each sample (`pack_bits`) and is empty where labels are no vector; `errors` of
    `scored` samples were wrong, labels of -1 are not scored. `ms` is the wall time of the method's call.
    """

    method: str
    seed: int
    batch: int
    segment: str
    severity: int
    samples: int
    scored: int
    errors: int
    wrong: str = ""
    updated: bool = False
    reason: str | None = None
    held: int = 0
    forwards: float = 0.0
    backwards: float = 0.0
    ms: float = 0.0
    state_bytes: int = 0
    values: Mapping[str, float | None] = field(default_factory=dict[str, float | None])

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRow:
    """The end of one unit: one method under one seed went through the whole stream.

    `held_out` has the `errors` of the `scored` answers to source images that the stream left out, given in the end by
    what was learned; empty where there are none. `memory` has the bytes of `Adapted.memory` on a batch of the stream:
    `model`, `rollback`, `saved`, `predicted`, and by kind of `state`.
    """

    method: str
    seed: int
    batches: int
    scored: int
    errors: int
    seconds: float
    held_out: Mapping[str, int] = field(default_factory=dict[str, int])
    memory: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def json(self) -> dict[str, Any]:
        return asdict(self)
