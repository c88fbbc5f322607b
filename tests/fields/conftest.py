"""What the tests of segmentation stand on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from torch import Tensor, nn


@dataclass
class Output:
    logits: Tensor


class Wrapped(nn.Module):
    """As models of other libraries answer: an object, with logits at a quarter of the resolution."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Output:
        return Output(nn.functional.avg_pool2d(self.inner(images), 4))


@pytest.fixture
def wrap() -> Callable[[nn.Module], nn.Module]:
    return Wrapped
