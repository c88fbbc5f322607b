"""All gradients of a model in one flat vector."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["FlatGradients", "digest"]


def digest(parameters: Iterable[Tensor]) -> int:
    """64 bits of a BLAKE2 hash of all weights, in order; on accelerators they are copied to the host for it.

    >>> digest([torch.zeros(2)]) == digest([torch.zeros(2)]) != digest([torch.ones(2)])
    True
    """
    hashed = hashlib.blake2b(digest_size=8)
    for each in parameters:
        hashed.update(each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return int.from_bytes(hashed.digest(), "little")


class FlatGradients:
    """Parameters whose `.grad` are views of one vector `[d]`, into which backward adds.

    Arguments:
        parameters: those to train, of one type and device.

    Raises:
        ValueError: no parameter, some that need no gradient, one given twice, or several types or devices.

    >>> layer = torch.nn.Linear(2, 1)
    >>> flat = FlatGradients(layer.parameters())
    >>> layer(torch.ones(1, 2)).sum().backward()
    >>> flat.collect().tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("there are no parameters to train; give model.parameters().")
        kinds = {(each.dtype, each.device) for each in self.parameters}
        if len(kinds) > 1:
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            raise ValueError(f"found parameters of {found}; expected one type on one device.")
        if not all(each.requires_grad for each in self.parameters):
            raise ValueError("some parameters need no gradient. Give only those to train.")
        if len({id(each) for each in self.parameters}) < len(self.parameters):
            raise ValueError("a parameter is given twice; give each once.")
        first = self.parameters[0]
        self.vector = torch.zeros(sum(each.numel() for each in self.parameters), dtype=first.dtype, device=first.device)
        self._views = self._split(self.vector)
        self.attach()

    def _split(self, vector: Tensor) -> list[Tensor]:
        parts = vector.split([each.numel() for each in self.parameters])
        return [part.view(each.shape) for part, each in zip(parts, self.parameters, strict=True)]

    def attach(self) -> None:
        """Let every `.grad` be its view again."""
        for parameter, view in zip(self.parameters, self._views, strict=True):
            parameter.grad = view

    def clear(self) -> None:
        """Zero everywhere, ready for backward."""
        self.vector.zero_()
        self.attach()

    def collect(self) -> Tensor:
        """The vector, with gradients that were put elsewhere copied into it; zero where there is none."""
        for parameter, view in zip(self.parameters, self._views, strict=True):
            if parameter.grad is None:
                view.zero_()
            elif parameter.grad is not view:
                view.copy_(parameter.grad)
        self.attach()
        return self.vector

    def weights(self) -> Tensor:
        """A copy of all parameters, `[d]`."""
        return torch.cat([each.detach().reshape(-1) for each in self.parameters])

    def assign(self, weights: Tensor) -> None:
        """Set all parameters from `[d]`."""
        with torch.no_grad():
            for parameter, part in zip(self.parameters, self._split(weights), strict=True):
                parameter.copy_(part)
