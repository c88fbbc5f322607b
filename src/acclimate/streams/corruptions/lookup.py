"""Reading pixels at places of each sample's own."""

from torch import Tensor


def look_up(images: Tensor, place: Tensor) -> Tensor:
    """The pixels of images [N, C, H, W] at int64 places row * W + column, [N, ...] -> [N, C, ...]."""
    index = place.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view(*images.shape[:2], *place.shape[1:])
