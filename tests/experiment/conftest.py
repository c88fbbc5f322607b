"""A tiny stream, a tiny model and a run of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from acclimate.core.method import methods
from acclimate.experiment import Plan, Record, run
from acclimate.experiment.reproduce import Site
from acclimate.streams import Batch, Segment, Stream

GRADUAL = [("fog", 1), ("fog", 5), ("fog", 1), ("snow", 1), ("snow", 5)]


class TinyStream(Stream):
    """Random images under made-up shifts: a few batches a segment, every seventh label unknown."""

    def __init__(self, seed: int, segments: list[tuple[str, int]], *, samples: int = 20, name: str = "tiny") -> None:
        super().__init__(name, tuple(Segment(*pair) for pair in segments), ("a", "b", "c"), 8)
        generator = torch.Generator().manual_seed(seed)
        self._images = torch.rand(samples, 3, 8, 8, generator=generator)
        self._labels = torch.randint(3, (samples,), generator=generator)
        self._labels[::7] = -1
        self._order = torch.randperm(samples, generator=generator)
        self.seed = seed
        self.passes = 0

    def __len__(self) -> int:
        return len(self.segments) * -(-len(self._order) // 8)

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        position = 0
        for number, segment in enumerate(self.segments):
            for index in self._order.split(8):
                images = (self._images[index] * (0.5 + 0.1 * number)).clamp(0, 1)
                yield Batch(images, self._labels[index], index, segment, position)
                position += 1

    def protocol(self) -> dict:
        return {"name": self.name, "seed": self.seed, "segments": [[s.name, s.severity] for s in self.segments]}

    def fingerprint(self) -> str:
        return f"{self.name}-{self.seed}-{len(self.segments)}".ljust(64, "0")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, 8, 8


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(self.conv(x)).relu().mean((2, 3)))


@pytest.fixture
def tiny_stream() -> type[TinyStream]:
    return TinyStream


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    def make(*names: str, segments: list[tuple[str, int]] | None = None, seeds=(0, 1), **options) -> Plan:
        shifts = segments or [("fog", 5), ("snow", 5)]
        name = options.pop("stream_name", "tiny")
        return Plan(
            stream=lambda seed: TinyStream(seed, shifts, name=name),
            model=TinyNet().eval(),
            methods={name: methods.build(name) for name in names or ("source", "bn", "tent")},
            seeds=seeds,
            **options,
        )

    return make


@pytest.fixture
def tiny_record(make_plan, tmp_path: Path) -> Record:
    return run(make_plan(), tmp_path / "tiny")


@pytest.fixture
def gradual_record(make_plan, tmp_path: Path) -> Record:
    return run(make_plan(segments=GRADUAL, seeds=(0,)), tmp_path / "gradual")


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Where trials of the test file's own network are run: `MODEL` is its source."""
    path = tmp_path / "net.py"
    path.write_text(request.module.MODEL)
    return Site(model=f"{path}:build", validation=("digits", "train"))
