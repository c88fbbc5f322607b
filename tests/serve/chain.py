"""What a stream must have become, computed by itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.serve.audit import read_audit
from acclimate.serve.bodies import content_hash
from acclimate.serve.overlay import Overlay
from acclimate.serve.packed import Packed
from acclimate.serve.replay import replay
from acclimate.serve.settings import Settings

from .served import network


def learned(overlay: Overlay, batches: Iterable[Tensor], start: Packed | None = None) -> tuple[Packed, list[Tensor]]:
    """The state after these batches, one step each, and the answers on the way."""
    state, answers = start or overlay.first, list[Tensor]()
    for x in batches:
        stepped = overlay.step(state, x)
        answers.append(stepped.answered.logits.clone())
        state = stepped.state or state
    return state, answers


def states(folder: Path, batches: Iterable[Tensor], **settings: Any) -> dict[int, Packed]:
    """Every version of a stream, made again from its audit log; each is checked against it."""
    known = {content_hash(x): x for x in batches}
    overlay = Overlay(network(), Settings(guard=None, **settings))
    found = {0: overlay.first}
    for step in replay(network(), Settings(guard=None, **settings), folder, known.__getitem__):
        step.check()
        found[step.version] = step.state
    return found


def events(folder: Path, event: str) -> list[dict[str, Any]]:
    return [line for line in read_audit(folder) if line["event"] == event]


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, NaN included."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.view(torch.int32), b.view(torch.int32))
