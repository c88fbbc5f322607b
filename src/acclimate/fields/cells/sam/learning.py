"""Training of the segmenter on masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from acclimate.core.storage import fingerprint
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.sam.colours import Colours, colours_of
from acclimate.fields.cells.sam.loss import dice, mask_loss, nearest
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.variation import stained, turned
from acclimate.models.run import Progress, Run, carry_out, decayed, warm_cosine

__all__ = ["MaskTraining", "train_segmenter", "with_masks"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskTraining:
    """How masks are learned: AdamW, a linear warm-up, then half a cosine.

    Arguments:
        epochs, batch_size, learning_rate, weight_decay: 150, 32, 1e-4 and 0.1 as published.
        warmup: share of the steps, 10 epochs of 150 as published.
        dice: share of Dice in the loss, 0.8 as published.
        stain: how far colours are varied, see `stained`; 0 as published.
        own_colours: whether a laboratory's images are normalised by its own colours, rather than by those of all.
    """

    epochs: int = 150
    batch_size: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.1
    warmup: float = 10 / 150
    dice: float = 0.8
    stain: float = 0.0
    own_colours: bool = False

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = max(1, round(self.warmup * steps))
        return self.learning_rate * warm_cosine(step, steps, rise)


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

    Arguments: `model`, of the images' size; two parts take nucleus and cytoplasm for one; `output`, a .safetensors
    file of all weights. `progress` gets the epoch, epochs, mean loss and the mean Dice of the cells.

    Raises ValueError as `with_masks` and `carry_out` do.
    """
    known = with_masks(laboratories, model.size.image)
    images, masks, whose = _together(known)
    model.mean, model.std = colours_of(images)
    own = [colours_of(each.images) if training.own_colours else model.colours for each in known]
    means, deviations = (torch.stack(parts) for parts in zip(*own, strict=True))

    def step(index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        pictures, true = turned(images[index].float() / 255, masks[index].long(), generator)
        true = true.clamp_max(model.parts - 1)
        pictures = stained(pictures, training.stain, generator)
        logits = model(pictures, Colours(means[whose[index]], deviations[whose[index]])).logits
        found = dice(logits.detach().argmax(1) > 0, nearest(true, logits.shape[-1]) > 0)
        return mask_loss(logits, true, share=training.dice), found.sum()

    run = Run(
        f"{model.size.name} segmenter",
        model,
        torch.optim.AdamW(decayed(model, training.weight_decay), lr=training.learning_rate),
        step,
        training.rate,
        count=len(images),
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=seed,
    )
    header = {"training": _told(model, known, training, seed)}
    return carry_out(run, Path(output).expanduser(), header, progress=progress, resume=resume)


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


def _together(known: Sequence[Laboratory]) -> tuple[Tensor, Tensor, Tensor]:
    """Images, masks, and the place of each one's laboratory."""
    whose = torch.repeat_interleave(torch.arange(len(known)), torch.tensor([len(each) for each in known]))
    masks = torch.cat([each.masks for each in known if each.masks is not None])
    return torch.cat([each.images for each in known]), masks, whose


def _told(model: Segmenter, known: Sequence[Laboratory], training: MaskTraining, seed: int) -> str:
    digest = hashlib.sha256("".join(each.fingerprint() for each in known).encode()).hexdigest()
    numbers = {**asdict(training), "seed": seed, "parts": model.parts, "rank": model.rank, "size": model.size.told()}
    return json.dumps({**numbers, "data": digest, "start": fingerprint(model)}, sort_keys=True)
