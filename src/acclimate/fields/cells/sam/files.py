"""A trained segmenter as a small file: what was learned, and nothing of what it stands on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.core.storage import fingerprint
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import Size
from acclimate.models.files import read_tensors, write_tensors

__all__ = ["load_adapter", "load_segmenter", "save_adapter", "save_segmenter"]


def save_segmenter(model: Segmenter, path: str | Path) -> Path:
    """All weights, for a segmenter that was trained from scratch."""
    return _written(model, path, model.state_dict(), "")


def load_segmenter(path: str | Path) -> Segmenter:
    """What `save_segmenter` or `train_segmenter` wrote, in evaluation mode. FileNotFoundError, ValueError as usual."""
    tensors, header = read_tensors(Path(path).expanduser())
    told = _told(path, header)
    model = Segmenter(told["size"], parts=told["parts"], rank=told["rank"])
    _filled(model, tensors, path, whole=True)
    return model.eval()


def save_adapter(model: Segmenter, path: str | Path) -> Path:
    """Adapters, prompt encoder, decoder and colours: what learns beside a published encoder, which stays where it is.

    ValueError for a segmenter without adapters.
    """
    if not model.rank:
        raise ValueError("the segmenter has no adapters, so all of it was learned. Use save_segmenter.")
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    learned |= {"mean", "std"}
    kept = {name: value for name, value in model.state_dict().items() if name in learned}
    return _written(model, path, kept, _base(model))


def load_adapter(model: Segmenter, path: str | Path) -> Segmenter:
    """Put what `save_adapter` wrote into a segmenter on the same encoder; it comes back in evaluation mode.

    ValueError for another encoder, size, rank or number of parts; nothing is changed then.
    """
    tensors, header = read_tensors(Path(path).expanduser())
    told = _told(path, header)
    found = {"size": model.size, "parts": model.parts, "rank": model.rank, "base": _base(model)}
    wrong = [name for name, value in found.items() if told.get(name) != value]
    if wrong:
        raise ValueError(
            f"{path} is of another {', '.join(wrong)}: found {[told.get(name) for name in wrong]}, expected "
            f"{[found[name] for name in wrong]}. Load the encoder that it was trained on."
        )
    _filled(model, tensors, path, whole=False)
    return model.eval()


def _base(model: Segmenter) -> str:
    """Of the frozen weights."""
    frozen = torch.nn.Module()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            frozen.register_buffer(name.replace(".", "/"), parameter.detach())
    return fingerprint(frozen)


def _written(model: Segmenter, path: str | Path, tensors: Mapping[str, Tensor], base: str) -> Path:
    path = Path(path).expanduser()
    told = {"size": model.size.told(), "parts": model.parts, "rank": model.rank, "base": base}
    write_tensors(path, tensors, {"training": json.dumps(told, sort_keys=True)})
    return path


def _told(path: str | Path, header: Mapping[str, str]) -> dict[str, Any]:
    try:
        told = json.loads(header["training"])
        if {"parts", "rank"} <= set(told):
            return {**told, "size": Size.of(told["size"])}
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"{path} holds tensors but no segmenter of cells. Expected a file that save_segmenter wrote.")


def _filled(model: Segmenter, tensors: Mapping[str, Tensor], path: str | Path, *, whole: bool) -> None:
    expected = model.state_dict()
    wrong = [name for name, value in tensors.items() if name not in expected or expected[name].shape != value.shape]
    missing = [name for name in expected if name not in tensors] if whole else []
    if wrong or missing:
        raise ValueError(f"{path} does not fit the segmenter it names: {len(missing)} missing, {len(wrong)} of no use.")
    model.load_state_dict({**expected, **tensors})
