"""Torch's many-tensors-at-once operations, under typed names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["absolute", "add", "copy", "divide", "finite", "lerp", "multiply", "norm", "subtract", "sums"]

_LARGE = 4096


def absolute(tensors: Sequence[Tensor]) -> list[Tensor]:
    """`|tensor|` for each."""
    return list(torch._foreach_abs(list(tensors)))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def add(tensors: Sequence[Tensor], others: Sequence[Tensor] | float, scale: float = 1.0) -> list[Tensor]:
    """`tensor + scale * other` for each pair, or with one number for all."""
    if isinstance(others, (int, float)):
        return list(torch._foreach_add(list(tensors), scale * others))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return list(torch._foreach_add(list(tensors), list(others), alpha=scale))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def multiply(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """`tensor * other` for each pair; the other may be one number on the device."""
    return list(torch._foreach_mul(list(tensors), list(others)))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def divide(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """`tensor / other` for each pair."""
    return list(torch._foreach_div(list(tensors), list(others)))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def subtract(targets: Sequence[Tensor], others: Sequence[Tensor], scale: float = 1.0) -> None:
    """`target <- target - scale * other` for each pair, in place."""
    torch._foreach_sub_(list(targets), list(others), alpha=scale)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """`target.copy_(source)` for each pair."""
    torch._foreach_copy_(list(targets), list(sources))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def lerp(targets: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """`target <- target + weight (end - target)` for each pair, in place."""
    torch._foreach_lerp_(list(targets), list(ends), weight)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


def _norms(tensors: Sequence[Tensor], order: float, device: torch.device | None) -> Tensor:
    found = torch._foreach_norm(list(tensors), order)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    home = device or tensors[0].device
    return torch.stack([part.to(home, torch.float32) for part in found])


def norm(tensors: Sequence[Tensor], minus: Sequence[Tensor] | None = None) -> Tensor:
    """Euclidean norm of all tensors together, or of their difference from `minus`: a scalar tensor."""
    if minus is not None:
        tensors = torch._foreach_sub(list(tensors), list(minus))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return _norms(tensors, 2, None).norm()


def sums(tensors: Sequence[Tensor]) -> Tensor:
    """Sum of absolute values of each tensor: `[len(tensors)]`."""
    return _norms(tensors, 1, None)


def finite(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Whether all values of all tensors are finite: a bool on this device."""
    # The CPU's infinity norm is not vectorised: of large tensors it takes twenty times as long as both extremes.
    large = [each for each in tensors if each.device.type == "cpu" and each.numel() >= _LARGE]
    parts = [torch.stack(torch.aminmax(each)).to(device, torch.float32) for each in large]
    others = [each for each in tensors if each.device.type != "cpu" or each.numel() < _LARGE]
    if others:
        parts.append(_norms(others, float("inf"), device))
    return torch.cat(parts).isfinite().all()
