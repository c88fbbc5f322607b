"""How often a model that adapts is right about a stream of labelled images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acclimate.adapted import Adapted
from acclimate.core.method import Method
from acclimate.core.output import find_logits
from acclimate.fields.vision_language.entry import adapt
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.streams.stream import Batch

__all__ = ["Outcome", "call", "evaluate", "evaluate_methods", "placed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one pass came to.

    Arguments:
        images: how many came.
        scored: of how many of them the label is known; all that follows but time and `held` is about these.
        correct: answers that were right.
        top1: their share in percent.
        late: the same over the last half of the stream, the larger one if it is odd; methods may decline.
        per_class: the same by class; None for a class of which no image came.
        milliseconds: of answering, for each image.
        held: rows that the source answered, since they were unfit or a guard said so.
    """

    images: int
    scored: int
    correct: int
    top1: float
    late: float
    per_class: tuple[float | None, ...]
    milliseconds: float
    held: int


def evaluate(adapted: Adapted, batches: Iterable[Batch], *, progress: Callable[[int], None] | None = None) -> Outcome:
    """Answer a stream in one pass, adapting, and count. Labels are looked at after the answers and shown to nobody.

    Arguments:
        adapted: as `vision_language.adapt` makes it; go on from its present state.
        batches: of `LabelledImages`, of `Features`, or any stream.
        progress: called after each batch with the number of images so far.

    Raises ValueError for a stream without batches, without a known label, or with one that is no class.

    >>> from acclimate.fields.vision_language import Features
    >>> features = Features(clip=torch.eye(3), text=torch.eye(3), labels=torch.tensor([0, 1, 1]))
    >>> round(evaluate(adapt(features.model(), method="zero-shot"), features.batches()).top1, 1)
    66.7
    """
    right: list[Tensor] = []
    told: list[Tensor] = []
    classes = images = held = 0
    seconds = 0.0
    for batch in batches:
        inputs = placed(adapted, batch)
        start = time.perf_counter()
        logits = call(adapted, inputs)
        answers = logits.argmax(1).cpu()
        seconds += time.perf_counter() - start
        classes, images = logits.shape[1], images + len(answers)
        held += 0 if adapted.last is None else adapted.last.held
        right.append(answers == batch.labels)
        told.append(batch.labels)
        if progress is not None:
            progress(images)
    labels = torch.cat(told) if told else torch.zeros(0, dtype=torch.int64)
    known = labels >= 0
    if not known.any() or int(labels.max()) >= classes:
        found = f"labels up to {int(labels.max())} for {classes} classes" if known.any() else "no known label"
        raise ValueError(f"found {found} in {images} images, expected labels to score answers by. Label the stream.")
    correct, labels = torch.cat(right)[known], labels[known]
    counts, hits = torch.bincount(labels, minlength=classes), torch.bincount(labels[correct], minlength=classes)
    shares = zip(hits.tolist(), counts.tolist(), strict=True)
    return Outcome(
        images=images,
        scored=len(labels),
        correct=int(correct.sum()),
        top1=_percent(correct),
        late=_percent(correct[len(correct) // 2 :]),
        per_class=tuple(100 * hit / count if count else None for hit, count in shares),
        milliseconds=1e3 * seconds / images,
        held=held,
    )


def evaluate_methods(
    model: VisionLanguage,
    batches: Callable[[int], Iterable[Batch]],
    methods: Sequence[str] | Mapping[str, str | Method],
    *,
    seeds: Sequence[int] = (0,),
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, tuple[Outcome, ...]]:
    """Each method on the same streams, one pass for each seed, each from the source; by label, in order of seeds.

    Arguments:
        model: what adapts; it stays as it is.
        batches: from a seed to a stream, such as `lambda seed: features.batches(seed=seed)`.
        methods: names, or methods by label.
        seeds: of streams and methods.
        progress: called after each batch with label, seed and images so far.

    Raises ValueError for unknown methods, no seeds, and what `evaluate` raises it for.
    """
    named = methods if isinstance(methods, Mapping) else {name: name for name in methods}
    if not seeds or isinstance(methods, str):
        raise ValueError(f"found methods {methods!r} and seeds {list(seeds)}, expected a list of each, not empty.")
    found: dict[str, list[Outcome]] = {label: [] for label in named}
    for (label, method), seed in itertools.product(named.items(), seeds):

        def tell(images: int, label: str = label, seed: int = seed) -> None:
            if progress is not None:
                progress(label, seed, images)

        found[label].append(evaluate(adapt(model, method=method, seed=seed), batches(seed), progress=tell))
    return {label: tuple(outcomes) for label, outcomes in found.items()}


def placed(adapted: Adapted, batch: Batch) -> dict[str, Tensor]:
    """What a batch has for the model, where that is: `images` and, if there are any, `auxiliary` features."""
    device = next(itertools.chain(adapted.parameters(), adapted.buffers())).device
    auxiliary = getattr(batch, "auxiliary", None)
    return {"images": batch.images.to(device)} | ({} if auxiliary is None else {"auxiliary": auxiliary.to(device)})


def call(adapted: Adapted, inputs: dict[str, Tensor]) -> Tensor:
    """Logits `[B, K]` of what `placed` gives."""
    given: dict[str, Any] = {name: value for name, value in inputs.items() if name != "images"}
    return find_logits(adapted(inputs["images"], **given), None)


def _percent(correct: Tensor) -> float:
    return 100 * int(correct.sum()) / len(correct)
