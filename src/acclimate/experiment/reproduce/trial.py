"""A trial: one method, with all its settings, on one stream under one seed. Its digest is its identity."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from acclimate.core.config import Configured
from acclimate.core.guard import Guard, build_guard
from acclimate.core.method import Method, methods
from acclimate.experiment.poison.attack import Attack, attacks
from acclimate.parts.mean_teacher import MeanTeacher

__all__ = ["FORMAT", "StreamChoice", "Trial"]

FORMAT = 1
"""Version of a trial's identity and of its file."""


@dataclass(frozen=True, kw_only=True)
class StreamChoice:
    """Which stream, as `open_stream` takes it; `corruptions` empty for the standard fifteen."""

    spec: str
    split: str = "test"
    corruptions: tuple[str, ...] = ()
    size: int | None = None
    batch_size: int = 200


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is run once, whichever tables ask for it.

    Arguments:
        method: a name or `name:preset`.
        changes: settings to replace, as (name, value) pairs.
        stream: what arrives.
        seed: of stream and method.
        model: its name in tables.
        weights: fingerprint of the source model.
        network: of `load_model`, where the source model is not the site's own.
        compute: what changes bits beyond that: "cpu", "cuda amp", ...
        fit_gate: set CoTTA's threshold by the source model's confidence on training images.
        measured: look at what a step holds, at the first batch of each segment.
        equal_bytes: keep one share of all inputs of layers, the one with which a step holds so many bytes.
        guard: a name, names joined by `+`, or an instance; None for none.
        attack: a name or an instance; who stands among the stream's rows in its first half. None for nobody.
        pictures: count wrong answers for each picture of the data set, so that trials can be compared in pairs.
    """

    method: str
    changes: tuple[tuple[str, Any], ...] = ()
    stream: StreamChoice
    seed: int = 0
    model: str = ""
    weights: str = ""
    network: str = ""
    compute: str = "cpu"
    fit_gate: bool = False
    measured: bool = False
    equal_bytes: int | None = None
    guard: str | Guard | None = None
    attack: str | Attack | None = None
    pictures: bool = False

    def build(self) -> Method:
        """The method. ValueError for settings it does not have or take."""
        method = methods.build(self.method)
        known = {field.name for field in dataclasses.fields(method)}
        unknown = [name for name, _ in self.changes if name not in known]
        if unknown:
            raise ValueError(f"{method.name} has no setting {', '.join(unknown)} in this version.")
        return dataclasses.replace(method, **dict(self.changes))

    def identity(self) -> dict[str, Any]:
        """Everything that the outcome depends on, ready for JSON. Presets are spelled out."""
        method = self.build()
        gate = {"fitted": ["threshold"]} if self.fit_gate and isinstance(method, MeanTeacher) else {}
        measured = {"measured": True} if self.measured else {}
        equal = {} if self.equal_bytes is None else {"equal_bytes": self.equal_bytes}
        guard = build_guard(self.guard)
        guarded = {} if guard is None else {"guard": guard.config()}
        attacked = {} if self.attack is None else {"attack": attacks.build(self.attack).config()}
        pictures = {"pictures": True} if self.pictures else {}
        return {
            "format": FORMAT,
            "method": method.config(),
            **gate,
            **measured,
            **equal,
            **guarded,
            **attacked,
            **pictures,
            "stream": {**dataclasses.asdict(self.stream), "corruptions": list(self.stream.corruptions)},
            "seed": self.seed,
            "model": self.weights,
            "compute": self.compute,
        }

    @property
    def key(self) -> str:
        """The names of method and guard and the digest of the identity: the name of the trial's file."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        guard = build_guard(self.guard)
        guarded = "" if guard is None else f"+{guard.name}"
        return f"{self.method.partition(':')[0]}{guarded}-{digest[:20]}"

    @property
    def label(self) -> str:
        """For people: the method, what was changed, the stream and the seed."""
        equal = () if self.equal_bytes is None else (("bytes", f"{self.equal_bytes:,}"),)
        changed = ", ".join(f"{name}={_told(value)}" for name, value in (*self.changes, *equal))
        told = f"{self.method} ({changed})" if changed else self.method
        split = " validation" if self.stream.split == "train" or self.stream.corruptions else ""
        network = f", {self.network}" if self.network else ""
        guard = build_guard(self.guard)
        told += "" if guard is None else f" under {_told(guard)}"
        told += "" if self.attack is None else f" among {_told(attacks.build(self.attack))}"
        return f"{told} on {self.stream.spec}{split}{network}, seed {self.seed}"


def _told(value: Any) -> str:
    """A setting in words; of an object with settings those that are not its defaults."""
    if not isinstance(value, Configured):
        return str(value)
    known = ((field.name, getattr(value, field.name), field.default) for field in dataclasses.fields(value))
    changed = ", ".join(f"{name}={_told(given)}" for name, given, default in known if given != default)
    return f"{value.name}({changed})" if changed else value.name
