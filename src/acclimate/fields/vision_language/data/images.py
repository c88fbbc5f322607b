"""Image files with labels, and the batches that they come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from acclimate.core.config import one_of, whole
from acclimate.fields.vision_language.data.order import arranged
from acclimate.streams.ahead import made_ahead
from acclimate.streams.image_files import in_threads, rgb
from acclimate.streams.segments import Segment
from acclimate.streams.stream import Batch

__all__ = ["Damaged", "ImageBatches", "LabelledImages", "Preprocess"]

Preprocess: TypeAlias = Callable[[Any], Tensor]
"""An RGB image of Pillow to `[3, H, W]` in [0, 1], of the same size for all: what the loaders call `preprocess`."""

Damaged: TypeAlias = Literal["error", "skip"]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Files, the class of each, and the classes' names.

    Labels are for whoever scores answers; no method is given them.

    Arguments:
        name: of the data set; it decides about the order together with the seed.
        classes: names in the order of labels, underscores taken for blanks. Names may occur twice, as in ImageNet.
        paths: one for each image. They are opened when a batch needs them.
        labels: int64 `[N]`, each below `len(classes)`.
        root: the folder that all paths are in; only what is below it counts in the fingerprint.

    Raises ValueError for no images, or for labels and classes that do not fit them.
    """

    name: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: Tensor
    root: Path

    def __post_init__(self) -> None:
        if not self.paths or self.labels.dtype != torch.int64 or self.labels.shape != (len(self.paths),):
            raise ValueError(
                f"{self.name!r} has {len(self.paths)} images and labels {self.labels.dtype} {list(self.labels.shape)}, "
                "expected at least one image, and torch.int64 [N]. Pass a label for each."
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise ValueError(
                f"the labels of {self.name!r} reach from {low} to {high}, expected 0 to {len(self.classes) - 1}: it "
                f"names {len(self.classes)} classes. Name them all, or count labels from 0."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, size: int) -> LabelledImages:
        """At most `size` of the images, evenly spaced in stored order."""
        kept = arranged(self.name, len(self), None, size)
        return replace(self, paths=tuple(self.paths[place] for place in kept.tolist()), labels=self.labels[kept])

    def fingerprint(self) -> str:
        """SHA-256 of class names, labels, and the files' names and sizes; a file that is missing has none."""
        digest = hashlib.sha256(repr((self.name, self.classes, self.labels.tolist())).encode())
        for path in self.paths:
            size = path.stat().st_size if path.is_file() else None
            digest.update(f"{path.relative_to(self.root).as_posix()} {size}\n".encode())
        return digest.hexdigest()

    def batches(
        self, preprocess: Preprocess, *, batch_size: int = 64, seed: int | None = 0, damaged: Damaged = "error"
    ) -> ImageBatches:
        """Decoded images in batches, the same at each pass.

        Arguments:
            preprocess: an RGB image of Pillow to `[3, H, W]` in [0, 1].
            batch_size: images in a batch; the last one may be smaller.
            seed: of the order; None for the stored one.
            damaged: what to do about files that are missing or cannot be decoded: "error" raises with the path;
                "skip" leaves them out, so that their batch is smaller, and keeps their paths in `skipped`.
        """
        return ImageBatches(self, preprocess, batch_size, arranged(self.name, len(self), seed), damaged)


class ImageBatches:
    """Batches of a `LabelledImages`: float32 `[B, 3, H, W]` in [0, 1] with labels and positions. See its `batches`.

    While one is in use the next is decoded, in threads.

    Raises, while iterating: FileNotFoundError and ValueError for a file that is missing or damaged, unless these are
    skipped; ValueError for a `preprocess` that gives something else.
    """

    def __init__(
        self, images: LabelledImages, preprocess: Preprocess, batch_size: int, order: Tensor, damaged: Damaged
    ) -> None:
        whole(1, batch_size=batch_size)
        one_of("error", "skip", damaged=damaged)
        self.images = images
        self.skipped: list[Path] = []
        """Files that the last pass has left out, as far as it has come."""
        self._preprocess, self._places, self._damaged = preprocess, order.split(batch_size), damaged

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Batch]:
        self.skipped, position = [], 0
        segment = Segment(self.images.name, 0)
        for index, decoded in made_ahead(self._decoded, self._places, ahead=1):
            found = [(place, image) for place, image in zip(index.tolist(), decoded, strict=True) if image is not None]
            self.skipped += [
                self.images.paths[place] for place, image in zip(index.tolist(), decoded, strict=True) if image is None
            ]
            if found:
                kept = torch.tensor([place for place, _ in found])
                yield Batch(
                    self._stacked([image for _, image in found]), self.images.labels[kept], kept, segment, position
                )
                position += 1

    def _decoded(self, index: Tensor) -> list[Tensor | None]:
        return in_threads(self._read, [self.images.paths[place] for place in index.tolist()])

    def _read(self, path: Path) -> Tensor | None:
        try:
            image = rgb(path)
        except FileNotFoundError as error:
            if self._damaged == "skip":
                return None
            raise FileNotFoundError(
                f"there is no image {path}, which {self.images.name!r} lists. Unpack its archive again, or leave out "
                "what is missing with damaged='skip'."
            ) from error
        except ValueError:
            if self._damaged == "skip":
                return None
            raise
        found = self._preprocess(image)
        fits = isinstance(found, Tensor) and found.ndim == 3 and len(found) == 3 and found.numel()
        if not fits or not found.is_floating_point():
            told = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"preprocess made {told} of {path}, expected floats [3, H, W] in a tensor.")
        low, high = (float(bound) for bound in found.aminmax())
        if not (low >= -1e-6 and high <= 1 + 1e-6):
            raise ValueError(
                f"preprocess made values from {low:.3g} to {high:.3g} of {path}, expected [0, 1]. Leave normalisation "
                "to the encoder, which does it for itself."
            )
        return found.float()

    @staticmethod
    def _stacked(images: list[Tensor]) -> Tensor:
        sizes = sorted({tuple(image.shape) for image in images})
        if len(sizes) > 1:
            raise ValueError(
                f"preprocess made images of {len(sizes)} sizes, such as {list(sizes[0])} and {list(sizes[1])}, "
                "expected one. Let it crop or resize all to the same."
            )
        return torch.stack(images)
