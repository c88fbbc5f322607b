"""Training on labelled source images before an adaptation begins."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from acclimate.core.state import State
from acclimate.parts.source_images import source_batches

__all__ = ["report_losses", "source_steps", "train_on_source"]

_log = logging.getLogger(__name__)


def train_on_source(state: State, source: Any, batch_size: int, rates: Sequence[float], report_every: int) -> None:
    """Train the adapted weights by cross-entropy and SGD with momentum 0.9, one step for each of these rates.

    The source is read, in an order drawn anew, as often as it takes. ValueError if the loss is not finite.
    """
    optimizer = torch.optim.SGD(state.weights.values(), momentum=0.9)
    order = torch.Generator().manual_seed(state.table.seed)
    losses: list[Tensor] = []
    for x, labels in source_steps(state, source, batch_size, len(rates), order):
        logits = state.forward(x, answering=False)
        loss = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
        for name, gradient in state.gradients(loss).items():
            state.weights[name].grad = gradient
        optimizer.param_groups[0]["lr"] = rates[len(losses)]
        optimizer.step()
        losses.append(loss.detach())
        report_losses(losses, len(rates), report_every)
    optimizer.zero_grad()


def source_steps(
    state: State, source: Any, batch_size: int, steps: int, order: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """So many batches with labels; the source is read, in an order drawn anew, as often as it takes."""
    done = 0
    while done < steps:
        for x, labels in source_batches(state, source, batch_size, labelled=True, shuffle=order):
            assert labels is not None
            yield x, labels
            done += 1
            if done == steps:
                return


def report_losses(losses: Sequence[Tensor], total: int, every: int) -> None:
    """Log the mean of the latest losses, every so many steps and at the end. ValueError if it is not finite."""
    if len(losses) % every and len(losses) < total:
        return
    mean = torch.stack(list(losses[-every:])).mean()
    if not bool(mean.isfinite()):
        raise ValueError(
            f"training on the source came to a loss of {float(mean)}. Lower its rate, or look at the images."
        )
    _log.info("trained on the source: step %d of %d, loss %.4f", len(losses), total, float(mean))
