"""The cells of one laboratory: pictures with classes and masks, as far as these are known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from acclimate.fields.cells.data.problems import Problem
from acclimate.fields.cells.data.validation import checked_images, checked_labels, checked_masks
from acclimate.streams.dataset import Dataset
from acclimate.streams.scenes import VOID
from acclimate.streams.segments import suggest

__all__ = ["UNKNOWN", "Laboratory", "Problem", "check_classes"]

UNKNOWN = -1
"""The label of a cell whose class is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Laboratory:
    """Pictures of single cells that were made in one place, with the same stain and the same camera.

    Arguments:
        name: what tables and plots call it.
        images: uint8 `[N, 3, S, S]`, RGB.
        labels: int64 `[N]`, each below `len(classes)`, `UNKNOWN` where the class is not known.
        classes: names, in the order of labels. There may be more than have cells here.
        keys: what each picture is called, all different.
        masks: int8 `[N, S, S]`: 0 background, 1 cytoplasm (or the whole cell, where the nucleus is not told apart), 2
            nucleus, and `VOID` all over a picture whose mask is not known. None where no mask is.
        problems: files that were left out or repaired.

    Raises:
        ValueError: parts that do not fit each other.

    >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> len(Laboratory("dark", images, torch.tensor([0, UNKNOWN]), ("monocyte",), ("a", "b")))
    2
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    masks: Tensor | None = None
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        checked_images(self.name, self.images)
        checked_labels(self.name, len(self.images), self.labels, self.classes, self.keys)
        if self.masks is not None:
            checked_masks(self.name, self.images, self.masks)

    def __len__(self) -> int:
        """The number of cells."""
        return len(self.images)

    @property
    def masked(self) -> Tensor:
        """Whose mask is known: bool `[N]`."""
        if self.masks is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.images.device)
        return self.masks[:, 0, 0] != VOID

    def take(self, index: Tensor) -> Laboratory:
        """The cells at these places, in this order: int64 `[M]`, all different, or bool `[N]`.

        Raises:
            ValueError: no cells, or one of them twice.
        """
        places = torch.arange(len(self), device=index.device)[index]
        return replace(
            self,
            images=self.images[places],
            labels=self.labels[places],
            keys=tuple(self.keys[place] for place in places.tolist()),
            masks=None if self.masks is None else self.masks[places],
        )

    def of_classes(self, names: Sequence[str]) -> Laboratory:
        """The cells of these classes, labelled in this order; others and those of unknown class are left out.

        Raises:
            ValueError: a name that is no class or is given twice, or classes without any cell.
        """
        if isinstance(names, str):
            raise ValueError(f"names is the string {names!r}; expected a sequence of names: [{names!r}].")
        for name in names:
            if name not in self.classes:
                raise ValueError(f"{self.name!r} has no class {name!r}. {suggest(name, self.classes)}")
        table = torch.full((len(self.classes) + 1,), UNKNOWN, device=self.labels.device)  # the last is for UNKNOWN
        for label, name in enumerate(names):
            table[self.classes.index(name)] = label
        kept = table[self.labels] != UNKNOWN
        if not bool(kept.any()):
            raise ValueError(f"{self.name!r} has no cell of {', '.join(names) or 'no class'}; expected at least one.")
        some = self.take(kept)
        return replace(some, labels=table[some.labels], classes=tuple(names))

    def fingerprint(self) -> str:
        """SHA-256 of names, labels, pixels and masks; what was left out or repaired has no part in it."""
        digest = hashlib.sha256(repr((self.name, self.classes, self.keys, self.labels.tolist())).encode())
        for tensor in (self.images, *(() if self.masks is None else (self.masks,))):
            digest.update(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def dataset(self, split: str = "test") -> Dataset:
        """The cells as the library's streams and experiments take them, without masks.

        Arguments:
            split: `train` or `test`; it goes into the protocol.

        Raises:
            ValueError: a cell of unknown class.
        """
        unknown = int((self.labels == UNKNOWN).sum())
        if unknown:
            raise ValueError(
                f"{unknown} of the {len(self)} cells of {self.name!r} are of unknown class; expected none, since "
                "answers are scored. Leave them out: laboratory.of_classes(laboratory.classes)."
            )
        return Dataset(self.name, self.images, self.labels, self.classes, split)


def check_classes(laboratory: Laboratory, least: int = 2) -> None:
    """ValueError unless at least so many classes have cells: fewer leave nothing to learn.

    >>> images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    >>> check_classes(Laboratory("dark", images, torch.tensor([0, 1]), ("monocyte", "basophil"), ("a", "b")))
    """
    there = [name for label, name in enumerate(laboratory.classes) if bool((laboratory.labels == label).any())]
    if len(there) < least:
        raise ValueError(
            f"{laboratory.name!r} has cells of {len(there)} class{'' if len(there) == 1 else 'es'} "
            f"({', '.join(there) or 'none'}); expected at least {least}. Put the pictures of each class into a folder "
            "of its own."
        )
