"""Merged models for other runtimes."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.core.storage import sync_folder
from acclimate.streams.shared import require

__all__ = ["export"]


def export(model: nn.Module, path: str | Path, example: Tensor) -> Path:
    """Write a model of one input as `.pt2` (torch.export) or `.onnx`, for any number of rows; whole, or not at all.

    Arguments: `model`, merged or not; `path`, whose suffix says which; `example`, an input of two rows or more.

    Raises ValueError for another suffix or an example of one row, and ImportError where `.onnx` is asked for without
    the packages onnx and onnxscript. A member that torch cannot trace raises torch's own error.
    """
    path = Path(path).expanduser()
    if path.suffix not in (".pt2", ".onnx"):
        raise ValueError(f"found {path.name}, expected a file name that ends in .pt2 or .onnx.")
    if example.ndim < 1 or len(example) < 2:
        raise ValueError(f"found an example of {list(example.shape)}, expected two rows or more.")
    path.parent.mkdir(parents=True, exist_ok=True)
    was_training = {part: part.training for part in model.modules()}
    model.eval()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as drafts:
            draft = Path(drafts) / path.name
            _write(model, draft, example)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
    finally:
        for part, training in was_training.items():
            part.training = training
    sync_folder(path.parent)
    return path


def _write(model: nn.Module, path: Path, example: Tensor) -> None:
    rows = ({0: torch.export.Dim("rows", min=1)},)
    program: Any = torch.export.export(model, (example,), dynamic_shapes=rows)
    if path.suffix == ".pt2":
        torch.export.save(program, path)
        return
    require("onnxscript", "Export to ONNX", "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
        torch.onnx.export(program, (example,), path, external_data=False, verbose=False)
