"""How features stand to the rows of the classifier under each severity, before and after adaptation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate import Adapted, adapt
from acclimate.core.inputs import fit_rows
from acclimate.core.method import Method, methods
from acclimate.core.output import find_logits
from acclimate.core.storage import fingerprint, read_state, write_state
from acclimate.experiment.compute import Compute
from acclimate.experiment.neural_collapse import NeuralCollapse, neural_collapse
from acclimate.experiment.results import SOURCE
from acclimate.experiment.source import SourceImages
from acclimate.parts.alignment import alignment_distance, directions
from acclimate.parts.features import features, fed, rows_of_head
from acclimate.streams import Dataset, Stream

__all__ = [
    "GROUPS",
    "TABLE",
    "CollapsePlan",
    "Estimate",
    "Level",
    "check_severities",
    "measure_collapse",
    "source_collapse",
]

SEVERITIES = (0, 1, 2, 3, 4, 5)
GROUPS = ("all", "right", "wrong")
TABLE = "collapse.json"

_RESAMPLES = 1000
_TAIL = 0.025
_ROWS = 250
_LEAST = 10
"""A group of fewer answers is left out: its interval would say nothing."""
_FORMAT = 1

Floats = NDArray[np.float64]


def check_severities(severities: Sequence[int]) -> None:
    """ValueError unless they are some of 0 to 5, each once."""
    if not severities or sorted(set(severities) & set(SEVERITIES)) != sorted(severities):
        raise ValueError(f"severities are {list(severities)}; expected some of 0 to 5, each once.")


@dataclass(frozen=True, kw_only=True)
class CollapsePlan(Compute):
    """What to measure.

    Arguments, besides those of `Compute`:
        stream: makes the stream of a severity; 0 is clean.
        model: the source model.
        methods: by label; the unadapted model comes on its own.
        severities: 0 to 5, each once.
        seed: of the methods' private generators and of the resampling.
        source: images for methods that measure the source first.
    """

    stream: Callable[[int], Stream]
    model: nn.Module
    methods: Mapping[str, Method]
    severities: tuple[int, ...] = SEVERITIES
    seed: int = 0
    source: SourceImages | None = None

    def __post_init__(self) -> None:
        check_severities(self.severities)
        if SOURCE in self.methods:
            raise ValueError("the unadapted model is measured with every method; leave source out.")


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval over images; NaN for a group of fewer than ten answers."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Level:
    """One model under one severity.

    `truth`: mean distance of a feature from the row of its true class (G-FCA), over all answers, right ones and wrong
    ones. `answer`: from the row of the class that was answered (P-FCA); for right answers the same. `change`: of
    `truth["all"]` against the unadapted model, image by image. Error in percent. `kept`: the file of its distances,
    named after all that they depend on.
    """

    label: str
    severity: int
    error: float
    samples: int
    truth: Mapping[str, Estimate]
    answer: Mapping[str, Estimate]
    change: Estimate | None = None
    kept: str = ""


@dataclass
class _Seen:
    """Distances of one model's answers, a list of rows for each segment."""

    truth: list[list[Tensor]] = field(default_factory=list[list[Tensor]])
    answer: list[list[Tensor]] = field(default_factory=list[list[Tensor]])
    wrong: list[list[Tensor]] = field(default_factory=list[list[Tensor]])

    def tensors(self) -> dict[str, Tensor]:
        """Each `[segments, images]`."""
        parts = {"truth": self.truth, "answer": self.answer, "wrong": self.wrong}
        return {name: torch.stack([torch.cat(rows) for rows in segments]) for name, segments in parts.items()}


def measure_collapse(
    plan: CollapsePlan, folder: str | Path, *, progress: Callable[[int, int, str], None] | None = None
) -> list[Level]:
    """Run the stream of each severity and measure every answer as it is given, before the step that it leads to.

    The features of a batch are those of a frozen answer, so after all that was learned so far and before anything is
    learned from the batch: what a deployed model answers with. Each (severity, model) pair is kept in `folder` under a
    name that follows from all its choices; a second call with the same choices runs only what is missing. More methods
    or severities join those of a table that `write_collapse` has written there; other choices need another folder.

    Arguments:
        plan: what to measure.
        folder: for the distances of all answers; made if it is not there.
        progress: called with batches done, all batches, and where it is.

    Raises:
        ValueError: a model without a linear classifier of whole inputs, a method that cannot adapt it, or a folder
            whose table holds what is not asked for now.
    """
    plan.placed(plan.model)
    chosen: dict[str, Method] = {SOURCE: methods.build("source"), **plan.methods}
    streams = {severity: plan.stream(severity) for severity in plan.severities}
    files = {
        (severity, label): Path(folder).expanduser() / "levels" / f"{_digest(plan, stream, method)}.safetensors"
        for severity, stream in streams.items()
        for label, method in chosen.items()
    }
    _check_folder(Path(folder).expanduser(), {path.name for path in files.values()})
    total, done = sum(map(len, streams.values())), 0
    for severity, stream in streams.items():
        missing = {label: method for label, method in chosen.items() if not files[severity, label].is_file()}
        if not missing:
            done += len(stream)
            continue
        seen = {label: _Seen() for label in missing}
        for place in _answers(plan, stream, missing, seen):
            done += 1
            if progress is not None:
                progress(done, total, f"severity {severity}, {place}")
        for label, each in seen.items():
            write_state(files[severity, label], each.tensors(), {"severity": severity, "label": label})
    kept = {
        pair: {name: tensor.numpy() for name, tensor in read_state(path)[0].items()} for pair, path in files.items()
    }
    return [
        replace(
            _level(label, severity, kept[severity, label], kept[severity, SOURCE], plan.seed),
            kept=files[severity, label].name,
        )
        for severity in plan.severities
        for label in chosen
    ]


def _check_folder(folder: Path, names: Collection[str]) -> None:
    """ValueError if a table was written there of which these files would leave something out."""
    table = folder / TABLE
    if not table.exists():
        return
    advice = "Name another folder (--out on the command line), or delete this one."
    try:
        levels = json.loads(table.read_text("utf-8"))["levels"]
        lost = [f"severity {each['severity']}, {each['label']}" for each in levels if each["kept"] not in names]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{table} is not a table that can be continued. {advice}") from error
    if lost:
        raise ValueError(
            f"{folder} holds a measurement with other settings, or of more, that this one would replace: {lost[-1]}"
            f"{f' and {len(lost) - 1} more' if len(lost) > 1 else ''}. {advice}"
        )


def _digest(plan: CollapsePlan, stream: Stream, method: Method) -> str:
    """What the distances of one model on one stream depend on, as the name of their file."""
    source = None if plan.source is None else [plan.source.dataset.name, plan.source.count]
    choices: list[Any] = [_FORMAT, stream.fingerprint(), fingerprint(plan.model), method.config(), plan.seed]
    return hashlib.sha256(json.dumps([*choices, source, plan.compute], sort_keys=True).encode()).hexdigest()[:16]


def _answers(
    plan: CollapsePlan, stream: Stream, chosen: Mapping[str, Method], seen: Mapping[str, _Seen]
) -> Iterator[str]:
    """Fill `seen` batch by batch; says where it is."""
    adapted: dict[str, Adapted] = {}
    for label, method in chosen.items():
        try:
            given = plan.source.given(method, plan.seed, stream) if plan.source else method
            adapted[label] = plan.compiled(adapt(plan.model, given, guard=None, seed=plan.seed))
        except ValueError as error:
            raise ValueError(f"{label} cannot run on this model: {error}") from error
    segment = None
    for batch in stream:
        for label, model in adapted.items():
            images = batch.images.to(plan.device)
            with plan.forwards():
                truth, answer, wrong = _distances(model, images, batch.labels)
                if label != SOURCE:
                    model(images)
            parts = zip((seen[label].truth, seen[label].answer, seen[label].wrong), (truth, answer, wrong), strict=True)
            for segments, rows in parts:
                if batch.segment != segment:
                    segments.append([])
                segments[-1].append(rows)
        segment = batch.segment
        yield batch.segment.name.replace("_", " ")


@torch.no_grad()
def _looked_at(model: Adapted, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features, logits and the classifier's weight of a frozen answer."""
    with features(model.state) as seen, model.frozen():
        logits = find_logits(model(images))
    found = fed(seen, logits, images)
    return found, logits, rows_of_head(model.state, found, logits)


def _distances(model: Adapted, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """G-FCA, P-FCA and whether the answer is wrong: three of `[B]`; NaN for rows without a label or not fit to ask."""
    fit, _ = fit_rows(images)
    rows = torch.ones(len(images), dtype=torch.bool) if fit is None else fit.cpu()
    nothing = torch.full((len(images),), torch.nan)
    truth, answer, wrong = nothing, nothing.clone(), torch.zeros(len(images), dtype=torch.bool)
    if bool(rows.any()):
        found, logits, weight = _looked_at(model, images[rows.to(images.device)])
        towards, given = directions(found, weight), logits.argmax(1)
        known = labels[rows].clamp_min(0).to(given.device)
        truth[rows] = alignment_distance(towards, known).float().cpu()
        answer[rows] = alignment_distance(towards, given).float().cpu()
        wrong[rows] = (given != known).cpu()
    truth[labels < 0] = answer[labels < 0] = torch.nan
    return truth, answer, wrong


def source_collapse(model: nn.Module, dataset: Dataset, *, count: int = 2000, seed: int = 0) -> NeuralCollapse:
    """NC1 to NC4 and NC3+ of a model on labelled images of what it was trained on, drawn by the seed.

    ValueError where it is no linear classifier of whole inputs, or a class is missing.
    """
    index = torch.from_numpy(np.random.default_rng([seed, 1]).permutation(len(dataset))[:count])
    source = adapt(model, "source")
    device = next(model.parameters()).device
    parts: list[tuple[Tensor, Tensor]] = []
    weight = torch.empty(0)
    for rows in index.split(_ROWS):
        found, logits, weight = _looked_at(source, dataset.read(rows).to(torch.float32).div_(255).to(device))
        parts.append((found.cpu(), logits.argmax(1).cpu()))
    found, answers = (torch.cat(each) for each in zip(*parts, strict=True))
    return neural_collapse(found, dataset.labels[index], weight.cpu(), answers)


def _level(label: str, severity: int, own: Mapping[str, Any], source: Mapping[str, Any], seed: int) -> Level:
    truth, answer, wrong = own["truth"].astype(np.float64), own["answer"].astype(np.float64), own["wrong"]
    known = np.isfinite(truth)
    groups = dict(zip(GROUPS, (known, known & ~wrong, known & wrong), strict=True))
    drawn = np.random.default_rng([seed, severity]).multinomial(
        truth.shape[1], np.full(truth.shape[1], 1 / truth.shape[1]), size=_RESAMPLES
    )
    gone = truth - source["truth"].astype(np.float64)
    return Level(
        label=label,
        severity=severity,
        error=100 * float(wrong[known].mean()),
        samples=int(known.sum()),
        truth={name: _estimate(truth, group, drawn) for name, group in groups.items()},
        answer={name: _estimate(answer, group, drawn) for name, group in groups.items()},
        change=None if label == SOURCE else _estimate(gone, known & np.isfinite(gone), drawn),
    )


def _estimate(values: Floats, group: NDArray[np.bool_], drawn: NDArray[np.int64]) -> Estimate:
    """Mean over a group of answers `[segments, images]`, its interval by drawing whole images with replacement."""
    sums, counts = np.where(group, values, 0.0).sum(0), group.sum(0)
    if counts.sum() < _LEAST:
        return Estimate(np.nan, np.nan, np.nan)
    sizes = drawn @ counts
    means = (drawn @ sums)[sizes > 0] / sizes[sizes > 0]
    low, high = np.quantile(means, [_TAIL, 1 - _TAIL])
    return Estimate(float(sums.sum() / counts.sum()), float(low), float(high))
