"""What the tests of mixed streams stand on: a small data set, a mix of it, and a stream's rows."""

from __future__ import annotations

import torch

from acclimate.streams import Dataset, MixedStream, stream_dataset

__all__ = ["NAMES", "make", "pictures", "rows"]

NAMES = ("fog", "contrast", "brightness", "pixelate")


def pictures(count: int = 40, seed: int = 0, name: str = "photos") -> Dataset:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 32, 32), generator=draw, dtype=torch.uint8)
    return Dataset(name, images, torch.arange(count) % 4, ("a", "b", "c", "d"))


def make(dataset: Dataset, setting: str, **options) -> MixedStream:
    stream = stream_dataset(dataset, setting, **{"corruptions": NAMES, "batch_size": 10, **options})
    assert isinstance(stream, MixedStream)
    return stream


def rows(stream) -> list[tuple[int, int]]:
    """Domain and position of all images, in order."""
    batches = list(stream)
    return list(
        zip(
            torch.cat([b.domains for b in batches]).tolist(),
            torch.cat([b.index for b in batches]).tolist(),
            strict=True,
        )
    )
