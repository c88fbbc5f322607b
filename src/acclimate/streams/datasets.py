"""Data sets by name."""

from __future__ import annotations

from pathlib import Path

from acclimate.streams.cifar_archive import cifar_archive
from acclimate.streams.cifar_binary import cifar_binary
from acclimate.streams.corrupted_folder import corrupted_folder
from acclimate.streams.dataset import Dataset
from acclimate.streams.digits import digits
from acclimate.streams.image_folder import image_folder
from acclimate.streams.imagenet_c import imagenet_c
from acclimate.streams.segments import suggest
from acclimate.streams.shared import shared_file

__all__ = ["DATASETS", "load_dataset"]

DATASETS = ("digits", "cifar10", "cifar100", "cifar10c", "cifar100c", "imagenetc", "folder")
"""The names that `load_dataset` and `open_stream` know."""

_NEEDS_FOLDER = {
    "cifar100": "the unpacked CIFAR-100 binary version",
    "cifar10c": "the unpacked CIFAR-10-C folder",
    "cifar100c": "the unpacked CIFAR-100-C folder",
    "imagenetc": "the unpacked ImageNet-C folder",
    "folder": "a folder that holds one folder of images for each class",
}


def _cifar10(folder: Path | None, split: str) -> Dataset:
    archive = f"cifar10_{split}.npz"
    if folder is None:
        otherwise = "name the folder of the CIFAR-10 binary version: cifar10:DIR"
        return cifar_archive(shared_file(f"data/{archive}", otherwise), split)
    if (folder / archive).is_file():
        return cifar_archive(folder / archive, split)
    return cifar_binary("cifar10", folder, split)


def load_dataset(name: str, split: str = "test", *, data: str | Path | None = None) -> Dataset:
    """A data set by name.

    | name | what | where |
    |---|---|---|
    | `digits` | 1,797 handwritten digits, 32x32 | comes with scikit-learn |
    | `cifar10` | CIFAR-10 | the JPEG archives of the shared folder (`$ACCLIMATE_SHARED`) |
    | `cifar10:DIR`, `cifar100:DIR` | CIFAR-10, CIFAR-100 | their binary version, unpacked |
    | `cifar10c:DIR`, `cifar100c:DIR` | corrupted test images as published | `.npy` files, memory-mapped |
    | `imagenetc:DIR` | corrupted validation images as published | `DIR/<corruption>/<severity>/<class>/<image>` |
    | `folder:DIR` | `DIR/<class>/<image>` | decoded for each batch, resized and cropped to 224 |

    Arguments:
        name: as above.
        split: `train` or `test`. The corrupted sets have only `test`; of `folder` the directory decides.
        data: another way to name `DIR`.

    Raises:
        ValueError: an unknown name or split, or files with other content than expected.
        FileNotFoundError: the data is not there; the message says what to do.
        ImportError: scikit-learn (digits) or pillow (JPEG) is missing.

    >>> len(load_dataset("digits", "test"))
    797
    """
    kind, _, place = name.partition(":")
    if kind not in DATASETS:
        raise ValueError(f"There is no data set {kind!r}. {suggest(kind, DATASETS)}")
    if split not in ("train", "test"):
        raise ValueError(f"There is no split {split!r}; expected 'train' or 'test'.")
    if place and data is not None:
        raise ValueError(f"The folder is given twice: {place!r} in the name, and data={str(data)!r}. Drop one.")
    given = place or data
    folder = Path(given).expanduser() if given else None
    if kind == "digits":
        if folder is not None:
            raise ValueError(f"The data set 'digits' comes with scikit-learn; it takes no folder: {folder}.")
        return digits(split)
    if kind == "cifar10":
        return _cifar10(folder, split)
    if folder is None:
        raise ValueError(f"The data set {kind!r} needs {_NEEDS_FOLDER[kind]}: {kind}:DIR.")
    if kind == "folder":
        return image_folder(folder, split)
    if kind == "cifar100":
        return cifar_binary(kind, folder, split)
    if split != "test":
        raise ValueError(f"The data set {kind!r} has only the split 'test', got {split!r}.")
    if kind == "imagenetc":
        return imagenet_c(folder)
    return corrupted_folder(kind, folder)
