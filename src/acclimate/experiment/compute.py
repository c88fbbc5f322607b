"""Where and how a model computes."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from acclimate import Adapted
from acclimate.experiment.environment import environment

__all__ = ["SWITCHES", "Compute"]

SWITCHES = ("amp", "channels_last", "compile")
"""What of `Compute` is on or off."""

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """The machine's part of an experiment: it may change what answers round to and what they cost, no setting.

    Arguments:
        device: where model and batches are put: "cpu", "cuda", ...
        amp: run the model's forwards in bfloat16 where autocast does; weights stay as they are.
        channels_last: hold the model in that memory format.
        compile: compile the adapted model with `torch.compile`.
    """

    device: str = "cpu"
    amp: bool = False
    channels_last: bool = False
    compile: bool = False

    @property
    def compute(self) -> str:
        """What of all this changes bits, such as `cuda amp`."""
        return " ".join([torch.device(self.device).type, *(name for name in SWITCHES if getattr(self, name))])

    def environment(self) -> dict[str, str | int]:
        """Versions, machine, threads, device and switches, ready for JSON."""
        return environment(self.device) | {name: "on" if getattr(self, name) else "off" for name in SWITCHES}

    def check(self) -> None:
        """ValueError unless the device can be used here."""
        try:
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"the device {self.device!r} cannot be used here: {error}. Choose 'cpu'.") from error

    def placed(self, model: M) -> M:
        """The model itself, now on the device and in the memory format. ValueError as `check`."""
        self.check()
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model  # pyright: ignore[reportCallIssue]

    def compiled(self, adapted: Adapted) -> Adapted:
        """The adaptation itself, its answering copy compiled; the source's own compilation would not be copied."""
        if self.compile:
            adapted.module.compile()
        return adapted

    def forwards(self) -> AbstractContextManager[object]:
        """The block in which batches are answered."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16) if self.amp else contextlib.nullcontext()
