"""Published SAM as the encoder of a segmenter, at another image size than it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from acclimate.fields.cells.sam.meta import read_meta
from acclimate.fields.cells.sam.published import size_of
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.models.files import PICKLE_SUFFIXES
from acclimate.models.hub import Checkpoint
from acclimate.models.layers import IMAGENET_MEAN, IMAGENET_STD
from acclimate.streams.shared import require

__all__ = ["load_sam"]

_FRESH = (
    "mask_decoder.mask_tokens.",
    "mask_decoder.output_hypernetworks_mlps.",
    "mask_decoder.iou_prediction_head.",
)
"""How the names begin of what depends on the number of masks and is drawn anew."""


def load_sam(
    name_or_folder: str | Path,
    *,
    image_size: int = 224,
    parts: int = 2,
    rank: int = 4,
    revision: str | None = None,
    local_files_only: bool = False,
    seed: int = 0,
) -> Segmenter:
    """A segmenter on published weights, frozen, with fresh adapters, in evaluation mode; of any size of SAM.

    All is taken from the checkpoint but mask tokens, the networks that make masks of them, and the head for their
    quality: their number depends on `parts`. Positions and the relative positions of layers without windows are
    resized bilinearly to the new grid. Colours are those of ImageNet, which SAM was trained with.

    Arguments:
        name_or_folder: such as `facebook/sam-vit-base`, a folder that `save_pretrained` wrote, or a file of Meta's,
            such as `sam_vit_b_01ec64.pth`, of which only tensors are read.
        image_size: pixels of a side, a multiple of the patch; 224 as published for BC-SAM.
        parts, rank: see `Segmenter`; with rank 0 all of it learns.
        revision: branch, tag or commit on the hub.
        local_files_only: take what is cached, ask no server.
        seed: of adapters and of what is fresh.

    Raises ValueError for what is no SAM, lacks weights or has others; FileNotFoundError for no such file; ImportError
    without transformers. Source: BC-SAM (arXiv 2408.06716).
    """
    require("transformers", "Building SAM", "cells")
    path = Path(name_or_folder).expanduser()
    if path.is_file() or path.suffix.lower() in PICKLE_SUFFIXES:
        tensors, size = read_meta(path)
    else:
        place = Checkpoint.at(name_or_folder, revision, local_files_only)
        published = place.model(torch.float32, fresh=_FRESH, exact=True)
        tensors, size = published.state_dict(), size_of(published, place.name)
    model = Segmenter(size.at(image_size), parts=parts, rank=0, seed=seed)
    _fill(model, tensors, name_or_folder)
    for colour, numbers in ((model.mean, IMAGENET_MEAN), (model.std, IMAGENET_STD)):
        colour.copy_(torch.tensor(numbers).view(3, 1, 1))
    if rank:
        model.adapt(rank, seed=seed)
    return model.eval()


def _fill(model: Segmenter, found: Mapping[str, Tensor], source: str | Path) -> None:
    """ValueError unless there is all of the model but what is fresh, and nothing else."""
    expected: dict[str, Tensor] = model.sam.state_dict()
    whole = {f"vision_encoder.layers.{i}." for i, layer in enumerate(model.encoder.layers) if not layer.window_size}
    given = {name: value.float() for name, value in found.items() if not name.startswith(_FRESH)}
    fitted: dict[str, Tensor] = {}
    for name, value in given.items():
        shape = expected[name].shape if name in expected else value.shape
        if name == "vision_encoder.pos_embed":
            value = _resized(value.permute(0, 3, 1, 2), shape[1:3]).permute(0, 2, 3, 1)
        elif ".attn.rel_pos_" in name and name.startswith(tuple(whole)):
            value = _resized(value[None, None], (shape[0], value.shape[1]))[0, 0]
        fitted[name] = value
    missing = sorted(name for name in expected if name not in fitted and not name.startswith(_FRESH))
    wrong = sorted(
        name for name, value in fitted.items() if name not in expected or value.shape != expected[name].shape
    )
    if missing or wrong:
        raise ValueError(
            f"{source} does not hold the SAM that it says it is: {len(missing)} tensors are missing "
            f"({', '.join(missing[:3])}), {len(wrong)} are of no use ({', '.join(wrong[:3])}). Fetch it again."
        )
    model.sam.load_state_dict({**expected, **fitted})


def _resized(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The last two sides of four; those of the right size stay as they are."""
    if table.shape[2:] == tuple(shape):
        return table
    return F.interpolate(table, tuple(shape), mode="bilinear", align_corners=False)
