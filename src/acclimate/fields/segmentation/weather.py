"""Road scenes under weathers that come back: the protocol of Cityscapes to ACDC, and the same on CamVid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from acclimate.fields.segmentation.roads import acdc
from acclimate.streams.rounds import RoundsStream
from acclimate.streams.scenes import Scenes
from acclimate.streams.segments import Segment, plan_segments
from acclimate.streams.stream import JSON, DatasetStream

__all__ = ["CONDITIONS", "acdc_stream", "weather_stream"]

CONDITIONS = ("fog", "night", "rain", "snow")
"""In the order of the published streams."""


def _part(
    scenes: Scenes, segment: Segment, batch_size: int, size: int | None, seed: int, choices: Mapping[str, JSON]
) -> DatasetStream:
    available = len(scenes)
    if size is not None and not 1 <= size <= available:
        raise ValueError(f"size is {size}; expected 1 to {available}, the images of {scenes.name!r}.")
    if batch_size < 1 or seed < 0:
        raise ValueError(f"batch_size is {batch_size} and seed {seed}; expected 1 or more, and a seed from 0.")
    count = available if size is None else size
    return DatasetStream(
        f"{scenes.name}:{segment.name}",
        scenes,
        order=torch.arange(count) * available // count,
        segments=(segment,),
        batch_size=batch_size,
        corruption_seed=seed,
        choices={"order": "stored", "subset": "all" if size is None else "arange(size) * available // size", **choices},
    )


def weather_stream(
    scenes: Scenes,
    *,
    conditions: Sequence[str] = CONDITIONS,
    severity: int = 3,
    rounds: int = 10,
    batch_size: int = 2,
    size: int | None = None,
    seed: int = 0,
) -> RoundsStream:
    """Clear scenes under computed weather: every condition over all of them, then all of it again, `rounds` times.

    Images come as they are stored, like frames of a camera, and the same scene has the same weather in each round.

    Arguments:
        scenes: clear images with label maps, such as `camvid("test")`.
        conditions: corruptions by name, in order.
        severity: 1 to 5.
        rounds: how often the conditions come, 1 or more.
        batch_size: images in a batch; published streams have 1 or 2.
        size: take only this many images, evenly spaced.
        seed: of the weather.

    Raises:
        ValueError: a condition or number that does not exist.

    >>> black = Scenes("black", torch.zeros(3, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, 32, 32).long(), ("ink",))
    >>> len(weather_stream(black, rounds=2))
    16
    """
    segments = plan_segments("continual", severity=severity, corruptions=conditions)
    parts = [_part(scenes, segment, batch_size, size, seed, {"setting": "weather"}) for segment in segments]
    return RoundsStream(f"{scenes.name}:weather", parts, rounds)


def acdc_stream(
    folder: str | Path,
    *,
    split: str = "train",
    conditions: Sequence[str] = CONDITIONS,
    rounds: int = 10,
    batch_size: int = 1,
    size: int | None = None,
    pixels: tuple[int, int] | None = (540, 960),
) -> RoundsStream:
    """The photographs of ACDC as a stream: 400 of each condition in the published protocol, ten rounds.

    Arguments:
        folder: with `rgb_anon` and `gt`; see `acdc`.
        split: `train`, which published streams use, or `val`.
        conditions: in order.
        rounds: how often the conditions come, 1 or more.
        batch_size: images in a batch.
        size: take only this many images of each condition, evenly spaced.
        pixels: height and width that images and labels are brought to; None leaves them at 1080x1920.

    Raises:
        FileNotFoundError: a folder or label file that is not there.
        ValueError: a number that does not exist, or files of other content.
        ImportError: pillow is not installed.
    """
    parts = [
        _part(acdc(folder, condition, split, pixels=pixels), Segment(condition, 0), batch_size, size, 0, {})
        for condition in conditions
    ]
    return RoundsStream(f"acdc:{split}", parts, rounds)
