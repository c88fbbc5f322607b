"""Frost: ice crystals in front of the lens."""

import torch
from torch import Tensor

from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.frost_textures import frost_textures


def frost(images: Tensor, draws: Draws, keep: float, cover: float, stride: int) -> Tensor:
    r"""Ice over the image: :math:`k x + c\,I`, I a random cut from one of five textures of frost.

    The published textures are photographs; these are computed (see `frost_textures`) and tile the plane, so a
    cut may start anywhere and have any size. Small images see the textures reduced by picking every `stride`-th
    pixel, as in the published files.

    Arguments:
        keep: k in (0, 1].
        cover: c in (0, 1].
        stride: pixels of texture for one of the image, at least 1.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "frost", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    height, width = images.shape[-2:]
    device = images.device
    textures = frost_textures(device)
    kind = draws.integers(0, low=0, high=len(textures))
    start = draws.integers(1, 2, low=0, high=textures.shape[-1])
    row = (start[:, :1] + torch.arange(height, device=device) * stride) % textures.shape[-2]
    column = (start[:, 1:] + torch.arange(width, device=device) * stride) % textures.shape[-1]
    ice = textures[kind[:, None, None], :, row[:, :, None], column[:, None, :]].movedim(-1, 1)
    return images * keep + ice * cover
