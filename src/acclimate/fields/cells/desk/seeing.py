"""What the encoder makes of a laboratory of any size, in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.pipeline import CellEncoder
from acclimate.fields.cells.sam.seeing import see

__all__ = ["AT_ONCE", "Sighted", "mean_features", "sighted"]

AT_ONCE = 1024
"""Cells whose feature maps are kept at a time."""


class Sighted(NamedTuple):
    """`codes` float32 `[N, D]`; `masks` int8 `[N, S, S]`, predicted; `empty` bool `[N]`, where no cell was found."""

    codes: Tensor
    masks: Tensor
    empty: Tensor


def sighted(
    encoder: CellEncoder,
    laboratory: Laboratory,
    *,
    at_once: int = AT_ONCE,
    progress: Callable[[int, int], None] | None = None,
) -> Sighted:
    """Codes and masks of all cells.

    More than `at_once` are drawn into parts of about one size, always the same ones. Where the plan brings each
    laboratory to common colours, a part then stands for the laboratory.
    """
    count, done = len(laboratory), 0
    codes: list[Tensor] = []
    masks = torch.empty(count, *laboratory.images.shape[2:], dtype=torch.int8)
    empty = torch.zeros(count, dtype=torch.bool)
    parts = _parts(count, at_once)
    for part in parts:

        def tell(seen: int, total: int, before: int = done, size: int = len(part)) -> None:
            if progress is not None:
                progress(before + seen * size // total, count)

        views = encoder.look(laboratory.take(part), tell)
        codes.append(encoder.codes(views))
        masks[part] = views.masks
        empty[part[list(views.empty)]] = True
        done += len(part)
    return Sighted(_back(codes, parts), masks, empty)


def mean_features(encoder: CellEncoder, laboratory: Laboratory, *, at_once: int = AT_ONCE) -> Tensor:
    """The segmenter's feature map as it comes, the mean over places: float32 `[N, D]`, before any autoencoder."""
    parts = _parts(len(laboratory), at_once)
    seen = [see(encoder.segmenter, laboratory.take(part), own_colours=encoder.plan.own).features for part in parts]
    return _back([each.float().mean((2, 3)) for each in seen], parts)


def _parts(count: int, at_once: int) -> Sequence[Tensor]:
    parts = ceil(count / at_once)
    order = torch.arange(count) if parts == 1 else torch.randperm(count, generator=Generator().manual_seed(0))
    return order.tensor_split(parts)


def _back(rows: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """Rows of parts in the order of the laboratory."""
    found = torch.cat(list(rows))
    return torch.empty_like(found).index_copy_(0, torch.cat(list(parts)), found)
