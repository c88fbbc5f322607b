"""The past again: from a stream's audit log and the original inputs come the same versions, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.core.storage import read_state
from acclimate.models.files import read_tensors
from acclimate.serve.audit import audit_files, read_audit
from acclimate.serve.bodies import content_hash
from acclimate.serve.overlay import Overlay
from acclimate.serve.packed import Packed
from acclimate.serve.settings import Settings
from acclimate.serve.store import version_file

__all__ = ["Inputs", "Replayed", "input_folder", "replay"]

Inputs = Callable[[str], Tensor]
"""Gives the batch of a hash that stands in the log."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One version made again. `logged` is the digest of its state in the log, `found` that of `state`."""

    version: int
    event: str
    logged: str
    found: str
    state: Packed

    def check(self) -> None:
        """ValueError unless it is the version that was."""
        if self.logged != self.found:
            raise ValueError(
                f"version {self.version} ({self.event}) is another one now: found {self.found[:12]}, expected "
                f"{self.logged[:12]}. Replay with the model, method, seed, threads and versions of the server."
            )


def input_folder(folder: Path) -> Inputs:
    """Batches from files `SHA256.safetensors` that hold one tensor, `inputs`.

    What it gives raises FileNotFoundError for one that is missing and ValueError for another than was asked for.
    """

    def find(digest: str) -> Tensor:
        path = folder / f"{digest}.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}, expected the batch that the log names. Put its inputs there.")
        tensors, _ = read_tensors(path)
        x = tensors.get("inputs")
        if x is None or content_hash(x) != digest:
            raise ValueError(f"{path} does not hold that batch. Restore it from a copy.")
        return x

    return find


def replay(model: nn.Module, settings: Settings, folder: Path, inputs: Inputs) -> Iterator[Replayed]:
    """Make every version of a stream again, in the order of its audit log.

    Arguments: `model` and `settings`, as of the server; `folder`, the stream's, with its audit log; `inputs`, gives the
    batch of a hash. A log whose beginning is gone starts from the state file of the version before it.

    Raises ValueError where there is no log or it cannot be followed. Costs the updates.
    """
    if not audit_files(folder):
        raise ValueError(
            f"there is no audit log in {folder}, expected a stream's folder. It is STATE_DIR/streams/NAME of a server."
        )
    overlay = Overlay(model, settings)
    lines = list(read_audit(folder))
    last = {number: place for place, line in enumerate(lines) for number in _needed(line)}
    states = {0: overlay.first}
    for place, line in enumerate(lines):
        made = _made(line)
        if made is not None:
            state = _state(line, states, overlay, folder, inputs)
            states[made] = state
            yield Replayed(made, str(line["event"]), str(line["state"]), state.digest(), state)
        for number in [number for number in states if last.get(number, -1) <= place and number != made]:
            del states[number]


def _needed(line: Mapping[str, Any]) -> list[int]:
    """Versions whose state a line builds on."""
    if _made(line) is None or line["event"] == "reset":
        return []
    return [int(line["to" if line["event"] == "rollback" else "before"])]


def _made(line: Mapping[str, Any]) -> int | None:
    """The version that a line publishes."""
    return int(line["after"]) if "state" in line and isinstance(line.get("after"), int) else None


def _state(
    line: Mapping[str, Any], states: dict[int, Packed], overlay: Overlay, folder: Path, inputs: Inputs
) -> Packed:
    if line["event"] == "reset":
        return overlay.first
    (number,) = _needed(line)
    base = states.get(number) or _from_file(number, overlay, folder)
    if line["event"] == "rollback":
        return base
    x = torch.cat([inputs(digest) for digest in line["inputs"]])
    after = overlay.step(base, x).state
    return base if after is None else after


def _from_file(number: int, overlay: Overlay, folder: Path) -> Packed:
    path = version_file(folder, number)
    if not path.exists():
        raise ValueError(
            f"the log in {folder} builds on version {number}, whose beginning is gone: there is neither the part of "
            f"the log that made it nor {path.name}. Keep more of the log, or copies of state files."
        )
    tensors, header = read_state(path)
    return overlay.adopt(tensors, header["scalars"])
