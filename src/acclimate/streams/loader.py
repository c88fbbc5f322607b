"""Any loader of batches as a stream."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acclimate.streams.composition import Rows
from acclimate.streams.segments import Segment
from acclimate.streams.stream import JSON, STREAM_FORMAT, Batch, Stream

__all__ = ["LoaderStream", "from_loader"]

_log = logging.getLogger(__name__)
_IMAGE_KEYS = ("images", "image", "pixel_values", "inputs", "input", "x")
_LABEL_KEYS = ("labels", "label", "targets", "target", "y")


def _take(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if key in item), None)


def _parts(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Tensor):
        return item, None
    if isinstance(item, Mapping):
        images = _take(item, _IMAGE_KEYS)
        if images is None:
            raise ValueError(
                f"The loader gives dicts with the keys {sorted(map(str, item))}; expected images under one "
                f"of {', '.join(_IMAGE_KEYS)} (and labels under one of {', '.join(_LABEL_KEYS)})."
            )
        return images, _take(item, _LABEL_KEYS)
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) >= 1:
        return item[0], item[1] if len(item) > 1 else None
    raise ValueError(
        f"The loader gives {type(item).__name__}; expected (images, labels), a dict or a tensor of images."
    )


class LoaderStream(Stream):
    """The batches of a loader; `from_loader` makes them."""

    def __init__(
        self,
        loader: Iterable[Any],
        *,
        name: str,
        segment: Segment,
        classes: tuple[str, ...],
        normalised: bool,
    ) -> None:
        size = getattr(loader, "batch_size", None)
        super().__init__(name, (segment,), classes, size if isinstance(size, int) else 0)
        self._loader = loader
        self._normalised = normalised
        self._digest: str | None = None
        self._seen: list[Tensor] = []

    def __len__(self) -> int:
        if not isinstance(self._loader, Sized):
            raise TypeError(f"The loader of the stream {self.name!r} does not say how many batches it has.")
        return len(self._loader)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        for item in self._loader:
            _, channels, height, width = self._images(_parts(item)[0]).shape
            return channels, height, width
        raise ValueError(f"The loader of the stream {self.name!r} gives no batch.")

    def __iter__(self) -> Iterator[Batch]:
        digest = hashlib.sha256(self._protocol_bytes())
        start = 0
        seen: list[Tensor] = []
        for position, item in enumerate(self._loader):
            raw, given = _parts(item)
            images = self._images(raw)
            labels = self._labels(given, len(images))
            digest.update(str(tuple(images.shape)).encode())
            digest.update(images.detach().cpu().contiguous().numpy().tobytes())
            digest.update(labels.cpu().numpy().tobytes())
            seen.append(labels.cpu())
            index = torch.arange(start, start + len(images))
            start += len(images)
            yield Batch(images, labels, index, self.segments[0], position, torch.zeros_like(index))
        self._settle(digest.hexdigest())
        self._seen = seen

    def rows(self) -> Rows | None:
        """Known after the first pass."""
        if not self._seen:
            return None
        sizes = [len(labels) for labels in self._seen]
        labels = torch.cat(self._seen).numpy()
        return Rows(np.repeat(np.arange(len(sizes)), sizes), np.zeros(len(labels), dtype=np.int64), labels)

    def _settle(self, digest: str) -> None:
        if self._digest is not None and self._digest != digest:
            _log.warning(
                "The loader of the stream %r gave other batches than at its first pass, so methods which "
                "ran on it are not comparable. Turn shuffling and random augmentation off.",
                self.name,
            )
        self._digest = self._digest or digest

    def _images(self, raw: Any) -> Tensor:
        if not isinstance(raw, Tensor) or raw.ndim != 4 or not len(raw):
            found = f"a tensor {list(raw.shape)}" if isinstance(raw, Tensor) else type(raw).__name__
            raise ValueError(f"The loader of {self.name!r} gives {found} as images; expected [B, 3, H, W].")
        if raw.dtype == torch.uint8:
            return raw.to(torch.float32) / 255
        if not raw.is_floating_point():
            raise ValueError(f"The loader of {self.name!r} gives {raw.dtype} images; expected floats or uint8.")
        images = raw.to(torch.float32)
        if not self._normalised and bool(((images < 0) | (images > 1)).any()):
            raise ValueError(
                f"The images of {self.name!r} reach from {float(images.min()):.3g} to "
                f"{float(images.max()):.3g}; expected [0, 1]. Move the normalisation from the loader into "
                "the model, or pass normalised=True."
            )
        return images

    def _labels(self, given: Any, count: int) -> Tensor:
        if given is None:
            return torch.full((count,), -1, dtype=torch.int64)
        labels = torch.as_tensor(given)
        if labels.shape != (count,) or labels.is_floating_point():
            raise ValueError(
                f"The loader of {self.name!r} gives labels {labels.dtype} {list(labels.shape)}; expected "
                f"whole numbers [{count}], one for each image."
            )
        labels = labels.to(torch.int64)
        if self.classes and int(labels.max()) >= len(self.classes):
            raise ValueError(
                f"The loader of {self.name!r} gives the label {int(labels.max())}, but classes names only "
                f"{len(self.classes)}."
            )
        return labels

    def protocol(self) -> dict[str, JSON]:
        segment = self.segments[0]
        normalisation = "by the loader" if self._normalised else "inside the model; images are in [0, 1]"
        return {
            "format": STREAM_FORMAT,
            "dataset": self.name,
            "setting": "loader",
            "classes": list(self.classes),
            "batch_size": self.batch_size,
            "segments": [[segment.name, segment.severity]],
            "corruptions": "by the loader",
            "order": "by the loader",
            "normalisation": normalisation,
        }

    def fingerprint(self) -> str:
        """SHA-256 over the protocol and every batch; it needs one pass, unless one was made already."""
        if self._digest is None:
            for _ in self:
                pass
        return self._digest or ""


def from_loader(
    loader: Iterable[Any],
    *,
    name: str = "loader",
    segment: Segment | str = "unknown",
    classes: Sequence[str] = (),
    normalised: bool = False,
) -> Stream:
    """Any `DataLoader`, or other iterable of batches, as a stream of one segment.

    A batch is `(images, labels)`, a dict (`images`, `image`, `pixel_values`, `inputs`, `input` or `x`;
    `labels`, `label`, `targets`, `target` or `y`), or the images alone. Images are float in [0, 1], or uint8,
    `[B, 3, H, W]`. Batches without labels carry -1 and are not scored.

    Arguments:
        loader: it must give the same batches at each pass: no shuffling, no random augmentation.
        name: as in records.
        segment: what the batches carry, for tables and plots.
        classes: names, in the order of the model's outputs.
        normalised: the loader normalises, so values outside [0, 1] are meant; recorded in the protocol.

    Raises:
        ValueError: something that can be iterated only once; and while iterating, batches of another form.

    >>> stream = from_loader([(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))], name="camera")
    >>> [batch.labels.tolist() for batch in stream]
    [[0, 1]]
    """
    if isinstance(loader, Iterator):
        raise ValueError(
            f"The loader of {name!r} is a {type(loader).__name__}, which can be read only once; expected "
            "something that starts anew at each pass: a DataLoader, a list, or an object with __iter__."
        )
    if isinstance(segment, str):
        segment = Segment(segment, 0)
    return LoaderStream(loader, name=name, segment=segment, classes=tuple(classes), normalised=normalised)
