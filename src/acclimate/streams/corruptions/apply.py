"""`corrupt`: checks, constants by size, random numbers by sample, then the corruption itself."""

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from acclimate.streams.corruptions.catalogue import CATALOGUE
from acclimate.streams.corruptions.draws import Draws

SMALLEST_SIDE = 32
_CPU_CHUNK = 1 << 20
_DEVICE_CHUNK = 1 << 26


@torch.no_grad()
def corrupt(
    images: Tensor,
    name: str,
    severity: int = 5,
    *,
    index: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    quantise: bool = True,
) -> Tensor:
    """Corrupt a batch of images as ImageNet-C and CIFAR-10-C do, reproducibly for each sample.

    The result for a sample depends on its image, `name`, `severity`, its index and `seed`, and on nothing else: not on
    the other images, its place in the batch, or the global random state (which is neither read nor
    changed). On one device with one version of torch it is the same bit for bit. Images with a short side up
    to 64 pixels take the published CIFAR-10-C constants, larger ones those of ImageNet-C.

    Arguments:
        images: float [N, 3, H, W] in [0, 1], or uint8 (divided by 255); H and W at least 32.
        name: one of `CORRUPTIONS`, `EXTRA_CORRUPTIONS` or `WEATHER`.
        severity: 1 (mild) to 5.
        index: N whole numbers that name the samples, usually their positions in the data set; default 0..N-1.
        seed: any int; another seed draws another noise for the same samples.
        quantise: cut to 8 bits (downwards, as the published files are). Otherwise keep the float result; pixelate
            and JPEG compression work on 8-bit pixels either way.

    Returns: float32 [N, 3, H, W] in [0, 1] on the device of `images`.

    Source: Hendrycks and Dietterich, *Benchmarking neural network robustness to common corruptions and
    perturbations*, ICLR 2019.

    Example:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> noisy = corrupt(images, "gaussian_noise", severity=3, index=[17, 4])
        >>> torch.equal(noisy[1:], corrupt(images[1:], "gaussian_noise", severity=3, index=[4]))
        True
    """
    if name not in CATALOGUE:
        raise ValueError(_unknown(name))
    if isinstance(severity, bool) or severity not in (1, 2, 3, 4, 5):
        raise ValueError(f"Severity {severity!r} found, 1, 2, 3, 4 or 5 expected. Pass severity=5 for the strongest.")
    images = _checked_images(images)
    indices = _checked_index(index, images)
    if not len(images):
        return images
    corruption = CATALOGUE[name]
    parameters = corruption.parameters(images.shape[2], images.shape[3], int(severity))
    chunk = _CPU_CHUNK if images.device.type == "cpu" else _DEVICE_CHUNK
    # Cut to what memory holds easily, as no sample depends on another.
    step = max(1, chunk // images[0].numel())
    results: list[Tensor] = []
    for part, keys in zip(images.split(step), indices.split(step), strict=True):
        draws = Draws.keyed(keys, seed, f"{name}-{severity}")
        results.append(corruption.apply(part, draws, *parameters))
    result = (torch.cat(results) if len(results) > 1 else results[0]).contiguous()
    result.clamp_(0.0, 1.0)
    return _eight_bits(result) if quantise else result


def _eight_bits(images: Tensor) -> Tensor:
    # A thousandth of a level keeps k / 255 * 255, a little below k in float32, from falling to k - 1.
    return images.mul_(255).add_(1e-3).floor_().div_(255)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(str(name), CATALOGUE, n=3, cutoff=0.5)
    advice = f"Did you mean {' or '.join(close)}?" if close else f"Choose one of {', '.join(CATALOGUE)}."
    return f"Unknown corruption {name!r}. {advice}"


def _checked_images(images: Tensor) -> Tensor:
    """`images` as contiguous float32 in [0, 1], or a ValueError."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"Images of shape {tuple(images.shape)} found, [N, 3, H, W] expected. "
            "Add a batch axis with images[None], move channels with images.permute(0, 3, 1, 2), "
            "or repeat a grey channel with images.expand(-1, 3, -1, -1)."
        )
    if min(images.shape[2:]) < SMALLEST_SIDE:
        raise ValueError(
            f"Images of {images.shape[2]}x{images.shape[3]} pixels found, at least {SMALLEST_SIDE}x{SMALLEST_SIDE} "
            "expected. Enlarge them first, for example with torch.nn.functional.interpolate."
        )
    if images.dtype == torch.uint8:
        return images.float().div_(255).contiguous()
    if not images.is_floating_point():
        raise ValueError(
            f"Images of type {images.dtype} found, floating point in [0, 1] or torch.uint8 expected. "
            "Convert them with images.to(torch.uint8)."
        )
    if not len(images):
        return images.to(torch.float32, copy=True)
    low, high = (float(bound) for bound in torch.aminmax(images))
    if not low >= 0.0 or not high <= 1.0:
        if not bool(torch.isfinite(images).all()):
            raise ValueError("Images with NaN or infinite values found, finite values expected. Mend them first.")
        raise ValueError(
            f"Images with values from {low:g} to {high:g} found, values in [0, 1] expected. "
            "Divide by 255 or undo the normalisation first."
        )
    return images.float().contiguous()


def _checked_index(index: Tensor | Sequence[int] | None, images: Tensor) -> Tensor:
    """One int64 per image on its device, or a ValueError."""
    if index is None:
        return torch.arange(len(images), device=images.device)
    given = torch.as_tensor(index, device=images.device)
    if given.numel() and (given.is_floating_point() or given.is_complex() or given.dtype == torch.bool):
        raise ValueError(f"An index of type {given.dtype} found, whole numbers expected. Convert it with index.long().")
    indices = given.long()
    if indices.shape != (len(images),):
        raise ValueError(
            f"An index of shape {tuple(indices.shape)} found, one number for each of {len(images)} images expected. "
            "Pass the positions of exactly these images."
        )
    return indices
