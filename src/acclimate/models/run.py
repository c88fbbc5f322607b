"""Training that can be interrupted: epochs of private draws, and a checkpoint after each."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn

from acclimate.models.files import read_tensors, write_tensors

__all__ = ["Progress", "Run", "carry_out", "checkpoint_of", "decayed", "warm_cosine"]

_log = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int, float, float], None]
"""Called after each epoch: epoch (from 1), epochs, mean loss, accuracy on the training batches (0 to 1);
of scenes, the share of pixels."""

_KEPT = {"momentum_buffer": "momentum", "exp_avg": "first", "exp_avg_sq": "second", "step": "step"}
"""What optimisers keep, and what it is called in a checkpoint."""


def decayed(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """What is learned, in two groups for an optimiser: matrices and kernels decay, norms and biases do not."""
    learned = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]


def warm_cosine(step: int, steps: int, rise: int) -> float:
    """The share of the highest learning rate at a step, counted from 0: `rise` steps up in a line, then
    `(1 + cos(pi (step - rise) / steps)) / 2`, which ends a little above nought.

    >>> warm_cosine(0, 10, 2), warm_cosine(2, 10, 2)
    (0.5, 1.0)
    """
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / steps))


class Run:
    """A model in training; everything that the next epoch depends on is in `state` and the epoch's number.

    Arguments:
        name: what messages call it.
        model: its parameters are what `optimizer` moves; in training mode while an epoch lasts.
        step: from positions int64 `[B]` and a generator to the mean loss, and how many of the B are right.
        rate: the learning rate of a step, from its number and that of all steps.
        count: how many examples there are.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        step: Callable[[Tensor, Generator], tuple[Tensor, Tensor]],
        rate: Callable[[int, int], float],
        *,
        count: int,
        batch_size: int,
        epochs: int,
        seed: int,
    ) -> None:
        if epochs < 1 or seed < 0:
            raise ValueError(f"epochs is {epochs} and seed {seed}; expected 1 or more epochs, and a seed from 0.")
        self.name, self.model, self.optimizer = name, model, optimizer
        self._step, self._rate = step, rate
        self.count, self.batch_size, self.epochs, self.seed = count, batch_size, epochs, seed

    def epoch(self, number: int) -> tuple[float, float]:
        """One pass; the draws of an epoch follow from the seed and its number, so no generator is kept.

        A rest of a single example, of which batch normalisation cannot be computed, belongs to the batch before.
        """
        # A product, not a sum: the epochs of neighbouring seeds must not share their draws.
        generator = Generator().manual_seed(self.seed * 1_000_003 + number)
        order = torch.randperm(self.count, generator=generator)
        batches = list(order.split(self.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1 < self.batch_size:
            batches[-2:] = [torch.cat(batches[-2:])]
        self.model.train()
        sums: list[Tensor] = []
        for position, index in enumerate(batches):
            rate = self._rate((number - 1) * len(batches) + position, self.epochs * len(batches))
            sums.append(self._moved(index, rate, generator))
        self.model.eval()
        loss, right = (torch.stack(sums).sum(0) / len(order)).tolist()
        if not torch.tensor([loss, right]).isfinite().all():
            raise FloatingPointError(
                f"Training {self.name!r} diverged in epoch {number}: the loss is {loss}. Expected a "
                "finite one; check the data, or use a lower learning rate."
            )
        return loss, right

    def _moved(self, index: Tensor, rate: float, generator: Generator) -> Tensor:
        loss, right = self._step(index, generator)
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return torch.stack([loss.detach() * len(index), right.to(loss)]).to(torch.float64)

    def state(self) -> dict[str, Tensor]:
        """Weights, buffers and what the optimiser keeps."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{_KEPT[key]}.{name}"] = value
        return tensors

    @property
    def over(self) -> bool:
        """Whether it ends before its last epoch."""
        return False

    def settle(self) -> None:
        """Called behind the last epoch: what the model is to end with is put in."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict({name: tensors[f"model.{name}"] for name in self.model.state_dict()})
        on_device = any(group.get("fused") or group.get("capturable") for group in self.optimizer.param_groups)
        for name, parameter in self.model.named_parameters():
            for key, kept in _KEPT.items():
                found = tensors.get(f"{kept}.{name}")
                if found is not None:
                    # Like the parameter: on its device and in its memory format. A step count stays where the
                    # optimiser wants it.
                    count = found.to(parameter.device) if on_device else found
                    like = count if found.ndim == 0 else torch.empty_like(parameter).copy_(found)
                    self.optimizer.state[parameter][key] = like.detach()


def checkpoint_of(output: Path) -> Path:
    """Where `carry_out` keeps what it has done so far."""
    return output.with_suffix(".partial.safetensors")


def carry_out(
    run: Run, output: Path, header: Mapping[str, str], *, progress: Progress | None = None, resume: bool = True
) -> Path:
    """Train to the end and write the weights to `output`, under `header`.

    After each epoch a checkpoint is written next to it (`NAME.partial.safetensors`). A run that resumes from it ends
    with the same bits as one that was never interrupted, on the same machine with the same number of threads. The
    checkpoint goes when the run ends. An exception leaves the model as it was after the last whole epoch, or before
    the first.

    Raises ValueError for another suffix than .safetensors or the checkpoint of a run with another header, and
    FloatingPointError for a loss that is not finite.
    """
    if output.suffix != ".safetensors":
        raise ValueError(f"output is {output}; expected a file name that ends in .safetensors.")
    checkpoint = checkpoint_of(output)
    with torch.inference_mode(False), torch.enable_grad():
        done = _resumed(run, checkpoint, header) if resume else 0
        whole = _weights(run.model)
        try:
            for number in range(done + 1, run.epochs + 1):
                if run.over:
                    break
                loss, right = run.epoch(number)
                write_tensors(checkpoint, run.state(), {**header, "epoch": str(number)})
                whole = _weights(run.model)
                _log.info("%s epoch %d of %d: loss %.4f, accuracy %.4f", run.name, number, run.epochs, loss, right)
                if progress is not None:
                    progress(number, run.epochs, loss, right)
        except BaseException:
            run.model.load_state_dict(whole)
            raise
    run.settle()
    run.model.eval()
    write_tensors(output, run.model.state_dict(), header)
    checkpoint.unlink(missing_ok=True)
    return output


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _resumed(run: Run, checkpoint: Path, header: Mapping[str, str]) -> int:
    """Continue from a checkpoint where there is a good one; the number of epochs it has done."""
    if not checkpoint.is_file():
        return 0
    try:
        tensors, found = read_tensors(checkpoint)
    except ValueError as error:
        _log.warning("The checkpoint is not used and training starts anew: %s", error)
        return 0
    differs = [key for key in header if found.get(key) != header[key]]
    if differs:
        told = "; ".join(f"found {key} {found.get(key)}, expected {header[key]}" for key in differs)
        raise ValueError(
            f"{checkpoint} is the checkpoint of another run: {told}. Choose another output, or start anew with "
            "resume=False."
        )
    run.restore(tensors)
    return int(found["epoch"])
