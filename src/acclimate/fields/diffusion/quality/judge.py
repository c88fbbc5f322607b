"""Images as a classifier sees them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acclimate.anatomy import head, stages
from acclimate.models.source import source_model

__all__ = ["Judge"]

_SIDE = 32
_BATCH = 250


class Judge:
    """A classifier of 32 x 32 RGB images in [0, 1], asked about images in [-1, 1] of one or three channels.

    Arguments: `classifier`, in evaluation mode, of convolutional stages and a linear head.

    Raises ValueError for one that has no such parts.
    """

    def __init__(self, classifier: nn.Module) -> None:
        found = head(classifier)
        ends = [list(stage.values())[-1] for stage in stages(classifier) if stage]
        if found is None or not ends:
            raise ValueError(
                f"{type(classifier).__name__} has no linear head or no stages of blocks; expected a residual network, "
                "such as source_model('digits')."
            )
        self._model, self._ends, self._head = classifier, ends, found[1]

    @classmethod
    def of(cls, dataset: str) -> Judge:
        """The library's own classifier of `digits` or `cifar10`."""
        return cls(source_model(dataset))

    def vectors(self, images: Tensor) -> Tensor:
        """What the linear head is fed: `[N, D]`."""
        return torch.cat([self._seen(part)[1] for part in images.split(_BATCH)])

    def named(self, images: Tensor) -> Tensor:
        """The likeliest class of each image: int64 `[N]`."""
        return torch.cat([self._seen(part)[2].argmax(1) for part in images.split(_BATCH)])

    def distance(self, images: Tensor, reference: Tensor) -> Tensor:
        """How differently two images are seen, `[N]`, from 0 for the same to 2.

        The mean over stages and places of `|f / |f| - g / |g||^2`, where f and g are the channels of the feature maps.
        Two maps of ReLUs lie at most a right angle apart, hence the 2. As LPIPS, without its learned weights.

        Raises ValueError for shapes that differ.

        Source: Zhang et al.: The Unreasonable Effectiveness of Deep Features, CVPR 2018 (arXiv 1801.03924).
        """
        if images.shape != reference.shape:
            raise ValueError(f"found images {list(images.shape)} and a reference {list(reference.shape)} of another.")
        parts = zip(images.split(_BATCH), reference.split(_BATCH), strict=True)
        return torch.cat([self._apart(self._seen(x)[0], self._seen(y)[0]) for x, y in parts])

    @staticmethod
    def _apart(maps: list[Tensor], others: list[Tensor]) -> Tensor:
        each = [
            (F.normalize(f, dim=1) - F.normalize(g, dim=1)).square().sum(1).flatten(1).mean(1)
            for f, g in zip(maps, others, strict=True)
        ]
        return torch.stack(each).mean(0)

    @torch.no_grad()
    def _seen(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """The last maps of each stage, what the head is fed, and the logits."""
        maps: list[Tensor] = []
        fed: list[Tensor] = []
        handles = [end.register_forward_hook(_keeping(maps)) for end in self._ends]
        handles.append(self._head.register_forward_pre_hook(lambda module, inputs: fed.append(inputs[0])))
        try:
            logits: Tensor = self._model(_shown(images))
        finally:
            for handle in handles:
                handle.remove()
        return maps, fed[-1], logits


def _keeping(maps: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    return lambda module, inputs, output: maps.append(output)


def _shown(images: Tensor) -> Tensor:
    """As the classifier takes them."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"found images {list(images.shape)}; expected [N, 1, H, W] or [N, 3, H, W] in [-1, 1].")
    x = (images.float().clamp(-1, 1) + 1) / 2
    if x.shape[-1] != _SIDE:
        x = F.interpolate(x, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
    return x.expand(-1, 3, -1, -1)
