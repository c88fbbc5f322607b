"""Training of source models: deterministic, resumable, without the global generator."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn

from acclimate.models.cache import kept_weights
from acclimate.models.files import read_tensors, write_tensors
from acclimate.models.recipes import RECIPES, Recipe, SceneRecipe
from acclimate.streams.camvid import camvid
from acclimate.streams.dataset import Dataset, Pictures
from acclimate.streams.datasets import load_dataset

__all__ = ["RECIPES", "Progress", "accuracy", "train"]

_log = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int, float, float], None]
"""Called after each epoch: epoch (from 1), epochs, mean loss, accuracy on the training batches (0 to 1);
of scenes, the share of pixels."""


_KEPT = {"momentum_buffer": "momentum", "exp_avg": "first", "exp_avg_sq": "second", "step": "step"}
"""What optimisers keep, and what it is called in a checkpoint."""


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


class _Run:
    """A model in training; everything that the next epoch depends on is in `state` and the epoch's number."""

    def __init__(
        self, recipe: Recipe, data: Pictures, epochs: int, seed: int, device: str, *, amp: bool | None = None
    ) -> None:
        self.recipe, self.data, self.epochs, self.seed = recipe, data, epochs, seed
        self.device = torch.device(device)
        self.amp = self.device.type == "cuda" if amp is None else amp
        self.model = recipe.build(seed=seed).to(self.device)
        if self.amp:
            self.model = self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = _optimizer(self.model, recipe)
        weights = recipe.class_weights(data)
        self.class_weights = None if weights is None else weights.to(self.device)

    def epoch(self, number: int) -> tuple[float, float]:
        """One pass; the draws of an epoch follow from the seed and its number, so no generator is kept."""
        # A product, not a sum: the epochs of neighbouring seeds must not share their draws.
        generator = Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(len(self.data), generator=generator)
        batches = order.split(self.recipe.batch_size)
        self.model.train()
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for position, index in enumerate(batches):
            rate = self.recipe.rate((number - 1) * len(batches) + position, self.epochs * len(batches))
            total += self._step(index, rate, generator)
        self.model.eval()
        loss, right = (total / len(order)).tolist()
        if not torch.isfinite(total).all():
            raise FloatingPointError(
                f"Training {self.recipe.name!r} diverged in epoch {number}: the loss is {loss}. Expected a "
                "finite one; check the data, or use a lower learning rate."
            )
        return loss, right

    def _step(self, index: Tensor, rate: float, generator: Generator) -> Tensor:
        images, labels = self.recipe.views(self.data.read(index), self.data.answers(index), generator)
        images, labels = images.to(self.device), labels.to(self.device)
        if images.dtype == torch.uint8:
            images = images.to(torch.float32) / 255
        # bfloat16 has float32's range, so losses are not scaled.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            loss, right = self.recipe.loss(self.model, images, labels, self.class_weights, generator)
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return torch.stack([loss.detach() * len(index), right]).to(torch.float64)

    def state(self) -> dict[str, Tensor]:
        """Weights, buffers and what the optimiser keeps."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{_KEPT[key]}.{name}"] = value
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.model.load_state_dict({name: tensors[f"model.{name}"] for name in self.model.state_dict()})
        for name, parameter in self.model.named_parameters():
            for key, kept in _KEPT.items():
                found = tensors.get(f"{kept}.{name}")
                if found is not None:
                    # Like the parameter: on its device and in its memory format. A step count stays as it is.
                    like = found if found.ndim == 0 else torch.empty_like(parameter).copy_(found)
                    self.optimizer.state[parameter][key] = like.detach()


def _header(run: _Run) -> dict[str, str]:
    digest, everything = hashlib.sha256(), torch.arange(len(run.data))
    for pieces in (run.data.answers_source(everything), run.data.source(everything)):
        for piece in pieces:
            digest.update(piece)
    numbers = {**run.recipe.numbers(), "epochs": run.epochs, "seed": run.seed, "data": digest.hexdigest()}
    if run.amp:
        numbers["amp"] = True
    return {"training": json.dumps(numbers, sort_keys=True)}


def _resumed(run: _Run, checkpoint: Path, header: dict[str, str]) -> int:
    """Continue from a checkpoint where there is a good one; the number of epochs it has done."""
    if not checkpoint.is_file():
        return 0
    try:
        tensors, found = read_tensors(checkpoint)
    except ValueError as error:
        _log.warning("The checkpoint is not used and training starts anew: %s", error)
        return 0
    if {key: found.get(key) for key in header} != header:
        raise ValueError(
            f"{checkpoint} is the checkpoint of another run: found {found.get('training')}, "
            f"expected {header['training']}. Choose another output, or "
            "start anew with resume=False."
        )
    run.restore(tensors)
    return int(found["epoch"])


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"There is no recipe {name!r}. {hint}There are: {', '.join(RECIPES)}.")
    return RECIPES[name]


def _training_split(recipe: Recipe, data: str | Path | None) -> Pictures:
    return (
        camvid("train", data=data)
        if isinstance(recipe, SceneRecipe)
        else load_dataset(recipe.dataset, "train", data=data)
    )


def train(
    recipe: str | Recipe,
    *,
    output: str | Path | None = None,
    data: str | Path | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    resume: bool = True,
    device: str = "cpu",
    amp: bool | None = None,
) -> Path:
    """Train a source model and write its weights.

    After each epoch a checkpoint is written next to the output (`NAME.partial.safetensors`). A run that
    resumes from it ends with the same bits as one that was never interrupted, on the same machine with the
    same number of threads. The checkpoint goes when the run ends.

    Arguments:
        recipe: one of `RECIPES` by name, or your own.
        output: the file to write, `*.safetensors`; by default the one that `load_model` looks for.
        data: the folder of the data set; see `load_dataset`.
        epochs: instead of the recipe's.
        seed: of the initial weights, the order and the augmentation.
        progress: called after each epoch as `progress(epoch, epochs, loss, accuracy)`.
        resume: continue from the checkpoint where there is one.
        device: where to train; weights are written as CPU tensors.
        amp: compute in bfloat16 where autocast does, in the channels-last memory format; weights stay float32. By
            default on CUDA only.

    Returns:
        The path of the weights.

    Raises:
        ValueError: an unknown recipe, another suffix, or the checkpoint of another run.
        FileNotFoundError: the data is not there.
        FloatingPointError: the loss is not finite.
    """
    recipe = _recipe(recipe) if isinstance(recipe, str) else recipe
    output = kept_weights(recipe) if output is None else Path(output).expanduser()
    if output.suffix != ".safetensors":
        raise ValueError(f"output is {output}; expected a file name that ends in .safetensors.")
    epochs = recipe.epochs if epochs is None else epochs
    if epochs < 1 or seed < 0:
        raise ValueError(f"epochs is {epochs} and seed {seed}; expected 1 or more epochs, and a seed from 0.")
    dataset = _training_split(recipe, data)
    checkpoint = output.with_suffix(".partial.safetensors")
    with torch.inference_mode(False), torch.enable_grad():
        run = _Run(recipe, dataset, epochs, seed, device, amp=amp)
        header = _header(run)
        done = _resumed(run, checkpoint, header) if resume else 0
        for number in range(done + 1, epochs + 1):
            loss, right = run.epoch(number)
            write_tensors(checkpoint, run.state(), {**header, "epoch": str(number)})
            _log.info("%s epoch %d of %d: loss %.4f, accuracy %.4f", recipe.name, number, epochs, loss, right)
            if progress is not None:
                progress(number, epochs, loss, right)
    write_tensors(output, run.model.state_dict(), header)
    checkpoint.unlink(missing_ok=True)
    return output


def accuracy(model: nn.Module, dataset: Dataset, *, batch_size: int = 500) -> float:
    """Share of the clean images of a data set that a model names correctly, 0 to 1; in evaluation mode.

    Raises:
        ValueError: the data set is stored corrupted.
    """
    was_training = model.training
    model.eval()
    right = 0
    with torch.no_grad():
        for index in torch.arange(len(dataset)).split(batch_size):
            logits = model(dataset.read(index).to(torch.float32) / 255)
            right += int((logits.argmax(1) == dataset.labels[index]).sum())
    model.train(was_training)
    return right / len(dataset)
