"""Methods side by side on a stream of scenes that comes in rounds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn

from acclimate import Method, adapt
from acclimate.core.method import methods as known_methods
from acclimate.core.output import Selector, find_logits
from acclimate.core.storage import atomic_write
from acclimate.experiment.environment import environment
from acclimate.fields.segmentation.scores import Confusion
from acclimate.fields.segmentation.views import with_still_views
from acclimate.streams.rounds import RoundsStream
from acclimate.streams.stream import JSON, Batch

__all__ = ["Cell", "Comparison", "Watch", "compare"]

FORMAT = 1
"""Of the file that `Comparison.save` writes."""

Watch: TypeAlias = Callable[[str, Batch, Tensor], None]
"""Called after each batch with the method's label, the batch, and what was answered: int64 `[B, H, W]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a method came to under one condition in one round.

    Arguments:
        method: its label.
        round: from 1.
        condition: the shift.
        severity: of the shift, 0 for photographs.
        error: 100 minus the mean intersection over union in percent; NaN where nothing is labelled.
        pixel_error: share of the labelled pixels that are named wrongly, in percent.
        iou: of each class in percent, None where the truth of these images lacks it.
        images: how many.
    """

    method: str
    round: int
    condition: str
    severity: int
    error: float
    pixel_error: float
    iou: tuple[float | None, ...]
    images: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """All cells, and what somebody needs to get them again.

    Arguments:
        cells: by method, then as the stream comes.
        configs: all settings of each method by label.
        protocol: of the stream.
        fingerprint: of the stream.
        seed: of the methods.
        machine: versions, machine, threads.
        memory: of each method that was measured, bytes of one step on the first batch, by the names of `Memory`: what
            backward keeps at its peak (`saved`), what PyTorch would keep (`stock`), the allocator's peak (`device`).
    """

    cells: tuple[Cell, ...]
    configs: Mapping[str, Mapping[str, Any]]
    protocol: Mapping[str, JSON]
    fingerprint: str
    seed: int
    machine: Mapping[str, str | int]
    memory: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict[str, Mapping[str, int | None]])

    def mean_error(self, method: str) -> float:
        """The mean error of a method over all rounds and conditions.

        Raises:
            ValueError: the method is not here.
        """
        errors = [cell.error for cell in self.cells if cell.method == method]
        if not errors:
            raise ValueError(f"There is no method {method!r} here; there are: {', '.join(self.configs)}.")
        return sum(errors) / len(errors)

    def table(self, rounds: Sequence[int] = (1, 4, 7, 10)) -> str:
        """The published form, in Markdown: errors of some rounds by condition, and the mean over all rounds.

        Rounds that the stream does not have are left out.
        """
        shown = [number for number in rounds if any(cell.round == number for cell in self.cells)]
        conditions = list(dict.fromkeys(cell.condition for cell in self.cells))
        found = {(cell.method, cell.round, cell.condition): cell.error for cell in self.cells}
        columns = [(number, condition) for number in shown for condition in conditions]
        head = ["method", *(f"{condition} {number}" for number, condition in columns), "mean"]
        lines = [head, ["---", *("---:" for _ in head[1:])]]
        for method in self.configs:
            errors = [*(found[method, *column] for column in columns), self.mean_error(method)]
            lines.append([method, *("-" if math.isnan(error) else f"{error:.1f}" for error in errors)])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def save(self, path: str | Path) -> Path:
        """Write everything as one JSON file; numbers that are none become null."""
        path = Path(path).expanduser()
        cells = [{key: _plain(value) for key, value in asdict(cell).items()} for cell in self.cells]
        values = {
            "format": FORMAT,
            "cells": cells,
            "methods": self.configs,
            "protocol": self.protocol,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "environment": self.machine,
            "memory": self.memory,
        }
        atomic_write(path, f"{json.dumps(values, indent=1, allow_nan=False)}\n".encode())
        path.chmod(0o644)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: another kind of file, or one of another version.
            FileNotFoundError: no such file.
        """
        try:
            values = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']}")
            return cls(
                cells=tuple(_cell(cell) for cell in values["cells"]),
                configs=values["methods"],
                protocol=values["protocol"],
                fingerprint=values["fingerprint"],
                seed=values["seed"],
                machine=values["environment"],
                memory=values.get("memory", {}),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no comparison of format {FORMAT}, as Comparison.save writes them.") from error


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(values: dict[str, Any]) -> Cell:
    """A cell, with NaN for the errors that `_plain` has taken for nothing."""
    errors: dict[str, Any] = {name: math.nan for name in ("error", "pixel_error") if values[name] is None}
    return replace(Cell(**values), iou=tuple(values["iou"]), **errors)


def _labelled(methods: Sequence[str] | Mapping[str, str | Method]) -> dict[str, Method]:
    if isinstance(methods, str):
        raise ValueError(f"methods is the string {methods!r}; expected a sequence of names: [{methods!r}].")
    named = methods if isinstance(methods, Mapping) else {name: name for name in methods}
    if not named:
        raise ValueError("There are no methods to compare; name some, such as source and tent.")
    return {label: with_still_views(known_methods.build(method)) for label, method in named.items()}


def compare(
    model: nn.Module,
    stream: RoundsStream,
    methods: Sequence[str] | Mapping[str, str | Method],
    *,
    seed: int = 0,
    device: str = "cpu",
    output: Selector = None,
    progress: Callable[[str, int, int], None] | None = None,
    watch: Watch | None = None,
    measure: bool = False,
) -> Comparison:
    """Run each method through the whole stream and count its answers against the label maps.

    Each method starts from the source and is never reset. The answer counts that it gives when a batch arrives,
    before it learns from it. Logits of another size than the labels are enlarged bilinearly, as is usual. Where a
    method compares answers to views of an image, the views are `StillViews`: others move pixels about.

    Arguments:
        model: with logits `[B, C, H, W]`, in evaluation mode.
        stream: such as `weather_stream` makes.
        methods: names, or methods by the label they get in the table: `{"tent": Tent(normalization="alpha")}`.
        seed: of the methods' own randomness.
        device: where model and images go.
        output: where the logits are; see `acclimate.adapt`.
        progress: called after each batch with the method's label, batches done, batches in all.
        watch: called after each batch with what was answered.
        measure: also find out what a step on the first batch keeps, for `Comparison.memory`; no answer changes.

    Raises:
        ValueError: an unknown method, one that cannot adapt this model, or answers that do not fit the labels.

    Cost: of each method, once the stream; the images are made again for each. Measuring takes three steps more.
    """
    chosen = _labelled(methods)
    model = model.to(device)
    conditions = [part.segments[0] for part in stream.parts]
    cells: list[Cell] = []
    memory: dict[str, Mapping[str, int | None]] = {}
    for label, method in chosen.items():
        counts = [[Confusion(len(stream.classes)) for _ in stream.parts] for _ in range(stream.rounds)]
        seen = [[0 for _ in stream.parts] for _ in range(stream.rounds)]
        adapted = adapt(model, method, guard=None, output=output, seed=seed)
        for batch in stream:
            number, part = stream.place(batch.position)
            images = batch.images.to(device)
            if measure and label not in memory:
                taken = adapted.memory(images)
                memory[label] = {name: getattr(taken, name) for name in ("saved", "stock", "device")}
            answers = _answers(find_logits(adapted(images), output), batch.labels)
            counts[number - 1][part].add(answers, batch.labels)
            seen[number - 1][part] += len(images)
            if watch is not None:
                watch(label, batch, answers.cpu())
            if progress is not None:
                progress(label, batch.position + 1, len(stream))
        for number, row in enumerate(counts, start=1):
            for part, confusion in enumerate(row):
                cells.append(
                    Cell(
                        method=label,
                        round=number,
                        condition=conditions[part].name,
                        severity=conditions[part].severity,
                        error=confusion.error(),
                        pixel_error=confusion.pixel_error(),
                        iou=tuple(None if math.isnan(x) else 100 * x for x in confusion.iou().tolist()),
                        images=seen[number - 1][part],
                    )
                )
    configs = {label: method.config() for label, method in chosen.items()}
    machine = environment(device)
    return Comparison(tuple(cells), configs, stream.protocol(), stream.fingerprint(), seed, machine, memory)


@torch.no_grad()
def _answers(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.ndim != 4:
        raise ValueError(
            f"The model answers with {list(logits.shape)}; expected logits [B, C, H, W], one for each pixel and class."
        )
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = nn.functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    return logits.argmax(1)
