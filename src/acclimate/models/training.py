"""Training of source models: deterministic, resumable, without the global generator."""

from __future__ import annotations

import hashlib
import json
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from acclimate.models.cache import kept_weights
from acclimate.models.recipes import RECIPES, Recipe, SceneRecipe
from acclimate.models.run import Progress, Run, carry_out, decayed
from acclimate.streams.camvid import camvid
from acclimate.streams.dataset import Dataset, Pictures
from acclimate.streams.datasets import load_dataset

__all__ = ["RECIPES", "Progress", "accuracy", "train"]


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = decayed(model, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


class RecipeRun(Run):
    """A recipe carried out on a data set."""

    def __init__(
        self, recipe: Recipe, data: Pictures, epochs: int, seed: int, device: str, *, amp: bool | None = None
    ) -> None:
        self.recipe, self.data = recipe, data
        self.device = torch.device(device)
        self.amp = self.device.type == "cuda" if amp is None else amp
        model = recipe.build(seed=seed).to(self.device)
        if self.amp:
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        weights = recipe.class_weights(data)
        self.class_weights = None if weights is None else weights.to(self.device)
        super().__init__(
            recipe.name,
            model,
            _optimizer(model, recipe),
            self._learned,
            recipe.rate,
            count=len(data),
            batch_size=recipe.batch_size,
            epochs=epochs,
            seed=seed,
        )

    def _learned(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        images, labels = self.recipe.views(self.data.read(index), self.data.answers(index), generator)
        images, labels = images.to(self.device), labels.to(self.device)
        if images.dtype == torch.uint8:
            images = images.to(torch.float32) / 255
        # bfloat16 has float32's range, so losses are not scaled.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            return self.recipe.loss(self.model, images, labels, self.class_weights, generator)

    def header(self) -> dict[str, str]:
        """All that the weights depend on, but the machine."""
        digest, everything = hashlib.sha256(), torch.arange(len(self.data))
        for pieces in (self.data.answers_source(everything), self.data.source(everything)):
            for piece in pieces:
                digest.update(piece)
        numbers = {**self.recipe.numbers(), "epochs": self.epochs, "seed": self.seed, "data": digest.hexdigest()}
        if self.amp:
            numbers["amp"] = True
        return {"training": json.dumps(numbers, sort_keys=True)}


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

    After each epoch a checkpoint is written, and a run that was interrupted goes on from it; see `carry_out`.

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
    if output.suffix != ".safetensors":  # before the data is read
        raise ValueError(f"output is {output}; expected a file name that ends in .safetensors.")
    epochs = recipe.epochs if epochs is None else epochs
    with torch.inference_mode(False):
        run = RecipeRun(recipe, _training_split(recipe, data), epochs, seed, device, amp=amp)
    return carry_out(run, output, run.header(), progress=progress, resume=resume)


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
