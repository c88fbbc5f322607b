"""Glass blur: pixels displaced by their neighbours between two gaussian blurs."""

import math

import torch
from torch import Tensor

from acclimate.streams.corruptions.blur import smooth
from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.lookup import look_up


def glass_blur(images: Tensor, draws: Draws, sigma: float, reach: int, rounds: int) -> Tensor:
    r"""Frosted glass: blur, let pixels take the place of neighbours, blur again.

    A round visits the pixels from the lower right to the upper left, leaving out a margin, and replaces each by
    the one at a random offset, both parts uniform in -d .. d - 1. (Meant as an exchange, it is a copy in the
    published files: the second assignment reads what the first has just written.) The order matters: an
    offset down or right meets a pixel already replaced. So each pixel ends with the value at the end of the
    chain of offsets through visited pixels; chains are followed for all pixels at once by pointer doubling.

    Arguments:
        sigma: of both blurs, in pixels, above 0.
        reach: d in pixels, at least 1.
        rounds: at least 1.

    Example:
        >>> import torch
        >>> from acclimate.streams import corrupt
        >>> corrupt(torch.rand(2, 3, 32, 32), "glass_blur", severity=3).shape
        torch.Size([2, 3, 32, 32])
    """
    blurred = smooth(images, sigma).mul_(255).add_(1e-3).floor_()
    for stream in range(rounds):
        source = _sources(draws, stream, images.shape[2], images.shape[3], reach)
        blurred = look_up(blurred, source).view_as(blurred)
    return smooth(blurred.div_(255), sigma)


def _sources(draws: Draws, stream: int, height: int, width: int, reach: int) -> Tensor:
    """Where the value of each pixel comes from after one ordered round; int64 [N, H * W]."""
    device = draws.keys.device
    visited_rows, visited_columns = height - 2 * reach, width - 2 * reach
    offset = draws.integers(stream, 2, visited_rows, visited_columns, low=-reach, high=reach)
    inner = torch.arange(height * width, device=device).view(height, width)[reach + 1 :, reach + 1 :]
    inner = inner[:visited_rows, :visited_columns].reshape(-1)
    target = inner + (offset[:, 0] * width + offset[:, 1]).flatten(1)
    source = torch.arange(height * width, device=device).repeat(len(offset), 1)
    source[:, inner] = target
    if reach == 1:
        return source
    is_visited = torch.zeros(height * width, dtype=torch.bool, device=device)
    is_visited[inner] = True
    place = torch.arange(height * width, device=device)
    # A link is followed only into pixels visited before, that is at a later place in reading order.
    link = torch.where((source > place) & is_visited[source], source, place)
    for _ in range(math.ceil(math.log2(height * width))):
        further = link.gather(1, link)
        if torch.equal(further, link):
            break
        link = further
    return source.gather(1, link)
