"""From the bytes of a request's body to the batch that it holds, with suspicion."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from acclimate.anatomy import takes_indices
from acclimate.serve.refused import Refused
from acclimate.serve.settings import Limits

__all__ = ["JSON", "SAFETENSORS", "Reader", "content_hash"]

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"

_DEEPEST = 32
_EXPECTED = '{"inputs": nested list [N, ...]} or {"images": [base64 of PNG or JPEG, ...]}'


def _bad(found: str, expected: str, do: str, status: int = 422) -> Refused:
    return Refused(status, found=found, expected=expected, do=do)


def content_hash(x: Tensor) -> str:
    """SHA-256 of type, shape and values of a batch, whatever body it came in."""
    digest = hashlib.sha256(f"{x.dtype} {list(x.shape)}\n".encode())
    digest.update(x.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Reader:
    """Reads bodies for one model. Every method raises Refused for what it cannot read.

    Arguments: `indices`, whether the model takes whole numbers; `dtype`, of its floating-point inputs.
    """

    def __init__(self, limits: Limits, *, indices: bool, dtype: torch.dtype) -> None:
        self._limits, self._indices, self._dtype = limits, indices, dtype

    @classmethod
    def of(cls, model: nn.Module, limits: Limits) -> Reader:
        """As this model takes its inputs: in the type of its first floating-point weights."""
        floats = [p.dtype for p in model.parameters() if p.is_floating_point()]
        return cls(limits, indices=takes_indices(model), dtype=floats[0] if floats else torch.float32)

    def reading(self, content_type: str) -> Callable[[bytes], Tensor]:
        """What reads bodies of this type."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind == JSON:
            return self.json
        if kind == SAFETENSORS:
            return self.safetensors
        raise _bad(f"the content type {kind!r}.", f"{JSON} or {SAFETENSORS}", "Set Content-Type.", 415)

    def json(self, body: bytes) -> Tensor:
        """A batch from lists or images."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _bad(f"a body that is no JSON: {error}.", _EXPECTED, "Check how it is written.") from error
        return self.parsed(value)

    def parsed(self, value: Any) -> Tensor:
        """A batch from the value of a JSON body."""
        keys = list(value) if isinstance(value, dict) else []
        if keys == ["inputs"]:
            return self._checked(self._from_lists(value["inputs"]))
        if keys == ["images"]:
            return self._checked(self._from_images(value["images"]))
        told = f"the keys {', '.join(map(repr, keys[:5]))}" if isinstance(value, dict) else type(value).__name__
        raise _bad(f"{told}.", _EXPECTED, "Send one of the two.")

    def safetensors(self, body: bytes) -> Tensor:
        """A batch from the one tensor `inputs` of a safetensors body."""
        expected = "a safetensors body with one tensor named inputs"
        try:
            _named_once(body)
            tensors = safetensors.torch.load(body)
        except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise _bad(f"a body that is no safetensors: {error}.", expected, "Write it with safetensors.") from error
        if list(tensors) != ["inputs"]:
            names = ", ".join(map(repr, list(tensors)[:5])) or "none"
            raise _bad(f"the tensors {names}.", expected, "Send one tensor under that name.")
        return self._checked(tensors["inputs"])

    def _from_lists(self, value: Any) -> Tensor:
        expected = "a list of rows of numbers, all of one shape"
        if not isinstance(value, list) or not value:
            raise _bad(f"inputs that are {_kind(value)}.", expected, "Send at least one row.")
        if len(value) > self._limits.rows:
            raise self._too_many(len(value))
        try:
            self._room(math.prod(_shape(value)) * self._dtype.itemsize)
            numbers = np.array(value)
            if numbers.dtype.kind not in "iuf":
                raise ValueError("not all of them are numbers")
            whole = self._indices and numbers.dtype.kind in "iu"
            array = numbers.astype(np.int64 if whole else np.float64)
        except (ValueError, OverflowError) as error:
            raise _bad(f"inputs that are no numbers of one shape: {error}.", expected, "Mend the lists.") from error
        return torch.from_numpy(array)

    def _from_images(self, value: Any) -> Tensor:
        expected = "a list of base64 texts, each of a PNG or JPEG, all of one size"
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise _bad(f"images that are {_kind(value)}.", expected, "Send at least one image.")
        if len(value) > self._limits.rows:
            raise self._too_many(len(value))
        files = [_decoded(text, number) for number, text in enumerate(value)]
        sizes = [self._opened(raw, number).size for number, raw in enumerate(files)]
        if len(set(sizes)) > 1:
            told = ", ".join(f"{width}x{height}" for width, height in sorted(set(sizes))[:5])
            raise _bad(f"images of several sizes: {told}.", expected, "Scale them to what the model takes.")
        width, height = sizes[0]
        self._room(3 * width * height * len(files) * self._dtype.itemsize)
        batch = torch.empty(len(files), 3, height, width, dtype=torch.uint8)
        for number, raw in enumerate(files):
            batch[number] = self._pixels(raw, number)
        return batch.to(torch.float32).div_(255)

    def _opened(self, raw: bytes, number: int) -> Any:
        """An image of which only the header has been read."""
        from acclimate.streams.shared import require

        pillow = require("PIL.Image", "Answering images")
        try:
            image = pillow.open(io.BytesIO(raw), formats=("PNG", "JPEG"))
            if math.prod(image.size) > self._limits.pixels:
                raise ValueError(f"it has {image.size[0]}x{image.size[1]} pixels")
            return image
        except pillow.UnidentifiedImageError as error:
            expected = f"a PNG or JPEG of at most {self._limits.pixels} pixels"
            raise _bad(f"image {number}, which is neither PNG nor JPEG.", expected, "Send it again.") from error
        except (OSError, SyntaxError, ValueError, EOFError, pillow.DecompressionBombError) as error:
            raise self._unreadable(number, error) from error

    def _pixels(self, raw: bytes, number: int) -> Tensor:
        from acclimate.streams.image_files import pixels

        image = self._opened(raw, number)
        try:
            return pixels(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise self._unreadable(number, error) from error

    def _unreadable(self, number: int, error: Exception) -> Refused:
        expected = f"base64 of a PNG or JPEG of at most {self._limits.pixels} pixels"
        return _bad(f"image {number} that cannot be read: {error}.", expected, "Send it again.")

    def _room(self, size: int) -> None:
        """Refuse a batch of so many bytes before it is made."""
        most = self._limits.body_bytes
        if size > most:
            raise _bad(f"a batch of {size} bytes.", f"at most {most}", "Send fewer rows at once.", 413)

    def _too_many(self, rows: int) -> Refused:
        most = self._limits.rows
        return _bad(f"{rows} rows.", f"at most {most} in a request", "Send several requests.", 413)

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.numel() == 0:
            raise _bad(f"a batch of shape {list(x.shape)}.", "[N, ...] with at least one row", "Send no empty batch.")
        if len(x) > self._limits.rows:
            raise self._too_many(len(x))
        self._room(x.numel() * (self._dtype.itemsize if x.is_floating_point() else x.element_size()))
        if x.is_floating_point():
            x = x.to(self._dtype)
        elif x.dtype != torch.int64 or not self._indices:
            raise _bad(f"{x.dtype}.", "floating point", "For images of whole numbers 0..255 send x / 255.")
        return x


def _kind(value: Any) -> str:
    return "empty" if value == [] else f"of type {type(value).__name__}"


def _shape(value: list[Any]) -> list[int]:
    """The shape of nested lists of numbers. ValueError or OverflowError for any others.

    What is no number has to be found before NumPy sees it: one long text would make all of them as long.
    """
    shape, level = [len(value)], value
    while level and isinstance(level[0], list):
        if len(shape) == _DEEPEST:
            raise ValueError(f"they are more than {_DEEPEST} deep")
        if set(map(type, level)) != {list} or len(set(map(len, level))) > 1:
            raise ValueError("some are longer or deeper than others")
        shape.append(len(level[0]))
        if level[0] and not isinstance(level[0][0], list):
            break
        level = list(chain.from_iterable(level))
    try:
        for row in level if level and isinstance(level[0], list) else [level]:
            sum(row)  # the fastest way to meet what is no number
    except TypeError as error:
        raise ValueError("not all of them are numbers") from error
    return shape


def _decoded(text: str, number: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"image {number} that cannot be read: {error}.", "base64", "Encode the file as it is.") from error


def _named_once(body: bytes) -> None:
    """ValueError for a header in which a name comes twice: the last one would win, whatever others read."""
    length = int.from_bytes(body[:8], "little")
    if length > len(body) - 8:
        return  # the parser says so

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name in its header comes twice")
        return found

    json.loads(body[8 : 8 + length], object_pairs_hook=once)
