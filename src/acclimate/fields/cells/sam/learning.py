"""Training of the segmenter on masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from acclimate.core.config import at_least, below
from acclimate.core.storage import fingerprint
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.sam.colours import Colours
from acclimate.fields.cells.sam.identity import content
from acclimate.fields.cells.sam.lessons import Lessons
from acclimate.fields.cells.sam.loss import dice, nearest, parted_loss
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.variation import stained, turned
from acclimate.models.judged import JudgedRun
from acclimate.models.run import Progress, Run, carry_out, decayed, warm_cosine

__all__ = ["MaskTraining", "train_segmenter", "with_masks"]

_CHUNK = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskTraining:
    """How masks are learned: AdamW, a linear warm-up, then half a cosine.

    Otherwise than published, weights of norms and biases do not decay, and the learning rate moves with each step, not
    with each epoch; seeds are this library's, and the published cosine's end a little above nought is kept.

    Arguments:
        epochs, batch_size, learning_rate, weight_decay: 150, 32, 1e-4 and 0.1 as published.
        warmup: share of the steps, 10 epochs of 150 as published.
        dice: share of Dice in the loss, 0.8 as published.
        stain: how far colours are varied, see `stained`; 0 as published.
        own_colours: whether a laboratory's images are normalised by its own colours, rather than by those of all.
        held_out: share of the cells, from 0 to below 1, that are kept back to choose the epoch by: weights are those of
            the epoch with the highest mean Dice on them. With 0 nothing is kept back, and they are those of the last.

    Raises ValueError for a `held_out` out of range.
    """

    epochs: int = 150
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.1
    warmup: float = 10 / 150
    dice: float = 0.8
    stain: float = 0.0
    own_colours: bool = False
    held_out: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, held_out=self.held_out)
        below(1, held_out=self.held_out)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = max(1, round(self.warmup * steps))
        return self.learning_rate * warm_cosine(step, steps, rise)

    def told(self) -> dict[str, Any]:
        """As JSON values; a `held_out` of 0 is left out, so that digests are those from before there was one."""
        return {name: value for name, value in asdict(self).items() if value or name != "held_out"}


def train_segmenter(
    model: Segmenter,
    laboratories: Sequence[Laboratory],
    training: MaskTraining,
    output: str | Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    resume: bool = True,
) -> Path:
    """Train on all cells whose mask is known, of laboratories together; the model ends with what is written.

    Arguments: `model`, of the images' size; two parts take nucleus and cytoplasm for one, and three ask masks that do
    not tell the nucleus for the cell alone, see `parted_loss`; `output`, a .safetensors file of all weights. `progress`
    gets the epoch, epochs, mean loss and the mean Dice of the cells, as trained on.

    Raises ValueError as `with_masks` and `carry_out` do, and for a `held_out` that leaves nothing to learn from.
    """
    known = with_masks(laboratories, model.size.image)
    lessons = Lessons.of(known, training.held_out, seed)
    model.mean, model.std = lessons.colours
    own = lessons.own_colours if training.own_colours else [model.colours] * len(known)
    means, deviations = (torch.stack(parts) for parts in zip(*own, strict=True))

    def colours(index: Tensor) -> Colours:
        return Colours(means[lessons.whose[index]], deviations[lessons.whose[index]])

    def step(place: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        index = lessons.learned[place]
        pictures, true = turned(lessons.images[index].float() / 255, lessons.masks[index].long(), generator)
        pictures = stained(pictures, training.stain, generator)
        logits = model(pictures, colours(index)).logits
        return parted_loss(logits, true, lessons.told[index], share=training.dice), _alike(logits.detach(), true).sum()

    @torch.no_grad()
    def judge() -> float:
        found = [
            _alike(model(lessons.images[index].float() / 255, colours(index)).logits, lessons.masks[index].long())
            for index in lessons.held.split(_CHUNK)
        ]
        return float(torch.cat(found).mean())

    settings: dict[str, Any] = {
        "name": f"{model.size.name} segmenter",
        "model": model,
        "optimizer": torch.optim.AdamW(decayed(model, training.weight_decay), lr=training.learning_rate),
        "step": step,
        "rate": training.rate,
        "count": len(lessons.learned),
        "batch_size": training.batch_size,
        "epochs": training.epochs,
        "seed": seed,
    }
    run = JudgedRun(judge=judge, patience=training.epochs, **settings) if len(lessons.held) else Run(**settings)
    header = {"training": _told(model, known, training, seed)}
    return carry_out(run, Path(output).expanduser(), header, progress=progress, resume=resume)


def _alike(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice of each cell, background against the rest."""
    return dice(logits.argmax(1) > 0, nearest(masks, logits.shape[-1]) > 0)


def with_masks(laboratories: Sequence[Laboratory], side: int) -> list[Laboratory]:
    """Their cells whose mask is known. ValueError where there is none, and for pictures of other than `side` pixels."""
    for each in laboratories:
        found = each.images.shape[-1]
        if found != side:
            raise ValueError(f"{each.name} has pictures of {found} pixels, expected {side}. Read it with size={side}.")
    known = [each.take(each.masked) for each in laboratories if bool(each.masked.any())]
    if not known:
        names = ", ".join(each.name for each in laboratories)
        raise ValueError(f"no mask is known in {names or 'no laboratory'}, expected some. Read a folder with masks=.")
    return known


def _told(model: Segmenter, known: Sequence[Laboratory], training: MaskTraining, seed: int) -> str:
    digest = hashlib.sha256("".join(content(each) for each in known).encode()).hexdigest()
    numbers = {**training.told(), "seed": seed, "parts": model.parts, "rank": model.rank, "size": model.size.told()}
    return json.dumps({**numbers, "data": digest, "start": fingerprint(model)}, sort_keys=True)
