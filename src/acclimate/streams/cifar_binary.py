"""The ordinary binary files of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from acclimate.streams.cifar_names import CIFAR10_CLASSES, CIFAR100_CLASSES
from acclimate.streams.dataset import Dataset

__all__ = ["cifar_binary"]

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class _Layout:
    folder: str
    files: dict[str, tuple[str, ...]]
    label_bytes: int
    classes: tuple[str, ...]
    python_files: tuple[str, ...]
    title: str


_LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        1,
        CIFAR10_CLASSES,
        ("data_batch_1", "test_batch", "cifar-10-batches-py"),
        "CIFAR-10 binary version (cifar-10-binary.tar.gz)",
    ),
    "cifar100": _Layout(
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        2,
        CIFAR100_CLASSES,
        ("train", "test", "cifar-100-python"),
        "CIFAR-100 binary version (cifar-100-binary.tar.gz)",
    ),
}


def _find(folder: Path, layout: _Layout, split: str) -> list[Path]:
    names = layout.files[split]
    for place in (folder / layout.folder, folder):
        if (place / names[0]).is_file():
            missing = [name for name in names if not (place / name).is_file()]
            if missing:
                raise FileNotFoundError(f"{place} lacks {', '.join(missing)} of the {layout.title}.")
            return [place / name for name in names]
    if any((folder / name).exists() for name in layout.python_files):
        raise ValueError(
            f"{folder} holds the python version, which is made of pickle files; reading those can run code. "
            f"Expected {names[0]}: fetch the {layout.title} from the same page."
        )
    raise FileNotFoundError(
        f"There is no {names[0]} in {folder} or its {layout.folder}; expected the {layout.title}, unpacked."
    )


def _records(path: Path, layout: _Layout) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    raw = np.fromfile(path, dtype=np.uint8)
    length = layout.label_bytes + _PIXELS
    if not raw.size or raw.size % length:
        raise ValueError(
            f"{path} has {raw.size:,} bytes; expected a whole number of records of {length:,} bytes. The "
            f"file is truncated or no part of the {layout.title}."
        )
    return raw.reshape(-1, length)


def cifar_binary(name: str, folder: Path, split: str) -> Dataset:
    """CIFAR-10 or CIFAR-100 from its binary version.

    Records are one label byte (CIFAR-100: coarse, then fine; the fine one is used) and 3,072 bytes of pixels.

    Arguments:
        name: `cifar10` or `cifar100`.
        folder: the unpacked folder, or the one above it.
        split: `train` or `test`.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: a truncated file, labels out of range, or the python version (pickles).
    """
    layout = _LAYOUTS[name]
    records = np.concatenate([_records(path, layout) for path in _find(folder, layout, split)])
    labels = torch.from_numpy(records[:, layout.label_bytes - 1].astype(np.int64))
    images = torch.from_numpy(records[:, layout.label_bytes :].reshape(-1, 3, 32, 32).copy())
    return Dataset(name, images, labels, layout.classes, split)
