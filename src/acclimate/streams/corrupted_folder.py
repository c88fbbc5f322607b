"""CIFAR-10-C and CIFAR-100-C as published: one array per corruption, five severities in a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.streams.cifar_names import CIFAR10_CLASSES, CIFAR100_CLASSES
from acclimate.streams.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from acclimate.streams.dataset import Dataset, LazyImages
from acclimate.streams.segments import Segment

__all__ = ["corrupted_folder"]

_CLASSES = {"cifar10c": CIFAR10_CLASSES, "cifar100c": CIFAR100_CLASSES}
_SEVERITIES = 5


class _StackedArrays(LazyImages):
    """Memory-mapped arrays `[L, H, W, 3]` of one length, as if they were one."""

    def __init__(self, arrays: list[NDArray[np.uint8]]) -> None:
        self._arrays = arrays
        self._length = len(arrays[0])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        height, width, channels = self._arrays[0].shape[1:]
        return self._length * len(self._arrays), channels, height, width

    def read(self, index: Tensor) -> Tensor:
        out = torch.empty(len(index), *self.shape[1:], dtype=torch.uint8)
        for which in index.div(self._length, rounding_mode="floor").unique().tolist():
            rows = (index.div(self._length, rounding_mode="floor") == which).nonzero().squeeze(1)
            picked = self._arrays[which][(index[rows] - which * self._length).numpy()]
            out[rows] = torch.from_numpy(np.ascontiguousarray(picked)).permute(0, 3, 1, 2)
        return out


def _load(path: Path) -> NDArray[np.uint8]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy array ({error}). Fetch the file again.") from error
    if array.dtype.kind not in "iu":
        raise ValueError(f"{path} holds {array.dtype}; expected whole numbers.")
    return array


def _check_images(path: Path, array: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != (32, 32, 3):
        raise ValueError(f"{path} holds {array.dtype} {list(array.shape)}; expected uint8 [{len(labels)}, 32, 32, 3].")
    if len(array) != len(labels):
        raise ValueError(
            f"{path} holds {len(array):,} images, but labels.npy {len(labels):,} labels; expected as many."
        )


def _load_labels(path: Path) -> NDArray[np.int64]:
    labels = _load(path).astype(np.int64)
    if labels.ndim != 1 or not labels.size or labels.size % _SEVERITIES:
        raise ValueError(f"{path} has shape {list(labels.shape)}; expected one axis of five equal blocks.")
    blocks = labels.reshape(_SEVERITIES, -1)
    if (blocks != blocks[0]).any():
        raise ValueError(f"The five blocks of {path} differ; expected the same labels for each of the five severities.")
    return labels


def corrupted_folder(name: str, folder: Path) -> Dataset:
    """CIFAR-10-C or CIFAR-100-C from its published folder, memory-mapped.

    Each `<corruption>.npy` is uint8 `[5 M, 32, 32, 3]`: five blocks of the same `M` test images, one for each
    severity. `labels.npy` is `[5 M]`. The length of a block is read from the files. The fifteen standard
    corruptions must be there; the four extra ones may be.

    Raises:
        FileNotFoundError: the files that are missing are named.
        ValueError: an array of another shape or type.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; expected the unpacked {name} folder.")
    needed = [f"{corruption}.npy" for corruption in CORRUPTIONS] + ["labels.npy"]
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of the {len(needed)} files of {name}: {', '.join(missing)}."
        )
    labels = _load_labels(folder / "labels.npy")
    names = [*CORRUPTIONS, *(extra for extra in EXTRA_CORRUPTIONS if (folder / f"{extra}.npy").is_file())]
    arrays = [_load(folder / f"{corruption}.npy") for corruption in names]
    for corruption, array in zip(names, arrays, strict=True):
        _check_images(folder / f"{corruption}.npy", array, labels)
    length = len(labels) // _SEVERITIES
    blocks = {
        Segment(corruption, severity): (position * _SEVERITIES + severity - 1) * length
        for position, corruption in enumerate(names)
        for severity in range(1, _SEVERITIES + 1)
    }
    repeated = torch.from_numpy(labels).repeat(len(names))
    return Dataset(name, _StackedArrays(arrays), repeated, _CLASSES[name], "test", blocks)
