"""What of a laboratory a segmenter depends on."""

from __future__ import annotations

import hashlib

from acclimate.fields.cells.data.laboratory import Laboratory

__all__ = ["content"]


def content(laboratory: Laboratory, *, masks: bool = True) -> str:
    """SHA-256 of pixels and, with `masks`, masks; names and labels have no part in it, so that a cell with another
    label changes nothing of what was learned without labels."""
    digest = hashlib.sha256()
    for tensor in (laboratory.images, laboratory.masks if masks else None):
        if tensor is not None:
            digest.update(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
