"""An answer, and how it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

__all__ = ["Answer", "UpdateOutcome", "as_json", "as_safetensors"]

UpdateOutcome = Literal["queued", "done", "off", "frozen", "dropped"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request is told. `version` is the one that its logits come from; `batch`, what was answered with it."""

    stream: str
    version: int
    logits: Tensor
    held: int
    held_at_source: bool
    update: UpdateOutcome
    request: str
    batch: str

    def facts(self) -> dict[str, Any]:
        """All but the logits, as JSON values."""
        return {
            "stream": self.stream,
            "version": self.version,
            "held": self.held,
            "held_at_source": self.held_at_source,
            "update": self.update,
            "request": self.request,
            "batch": self.batch,
        }


def as_json(answer: Answer) -> bytes:
    """As JSON: null for logits that are not finite, and for the label of a row that has such."""
    logits = answer.logits.float()
    labels: Any = logits.argmax(1).tolist()
    rows: Any = logits.tolist()
    if not bool(logits.isfinite().all()):
        fine = logits.isfinite().flatten(1).all(1).tolist()
        labels = [label if ok else None for label, ok in zip(labels, fine, strict=True)]
        rows = [row if ok else _finite(row) for row, ok in zip(rows, fine, strict=True)]
    return json.dumps({**answer.facts(), "logits": rows, "labels": labels}, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return value if torch.tensor(value).isfinite() else None


def as_safetensors(answer: Answer) -> bytes:
    """As safetensors: the one tensor `logits`, bit for bit."""
    return safetensors.torch.save({"logits": answer.logits.contiguous().clone()})
