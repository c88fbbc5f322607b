"""What is diverse and yet does not help: negative controls of merging."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn

from acclimate.core.config import positive, whole
from acclimate.fields.recommendation.models.ranker import Ranker
from acclimate.models.initial import private_init

__all__ = ["averaged_weights", "dropout_draws", "field_masks", "noise_draws"]

_ROWS = 8192


def field_masks(model: Ranker, ids: Tensor) -> Tensor:
    """Logits `[F, N]`: each with one field kept and the embeddings of all others nought."""
    keep = torch.eye(model.fields)
    return _drawn(model, ids, [lambda rows, each=each: rows * each[:, None] for each in keep])


def noise_draws(model: Ranker, ids: Tensor, *, draws: int = 64, scale: float = 0.005, seed: int = 0) -> Tensor:
    """Logits `[draws, N]`, each with normal noise of that deviation on the embeddings."""
    whole(1, draws=draws)
    positive(scale=scale)
    generator = Generator().manual_seed(seed)

    def noisy(rows: Tensor) -> Tensor:
        return rows + scale * torch.randn(rows.shape, generator=generator)

    return _drawn(model, ids, [noisy] * draws)


def dropout_draws(model: Ranker, ids: Tensor, *, draws: int = 64, scale: float = 0.005, seed: int = 0) -> Tensor:
    """As `noise_draws`, with dropout switched on; nothing else is in training mode."""
    layers = [each for each in model.modules() if isinstance(each, nn.Dropout)]
    try:
        for each in layers:
            each.train()
        with private_init(seed):
            return noise_draws(model, ids, draws=draws, scale=scale, seed=seed)
    finally:
        for each in layers:
            each.eval()


@torch.no_grad()
def _drawn(model: Ranker, ids: Tensor, changes: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    found: list[Tensor] = []
    for part in ids.split(_ROWS):
        rows = model.embedding(part)
        found.append(torch.stack([model.score(change(rows)) for change in changes]))
    return torch.cat(found, 1)


def averaged_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts of one architecture and vocabulary. ValueError for none, or ones that do not match."""
    if not states or any(
        {k: v.shape for k, v in s.items()} != {k: v.shape for k, v in states[0].items()} for s in states
    ):
        raise ValueError(f"found {len(states)} state dicts, expected one or more of the same names and shapes.")
    return {
        name: torch.stack([each[name].double() for each in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }
