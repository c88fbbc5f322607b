"""Features of images by their encoders, written in pieces, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from acclimate.core.config import whole
from acclimate.core.storage import atomic_write, fingerprint
from acclimate.fields.vision_language.data.images import Damaged, LabelledImages, Preprocess
from acclimate.fields.vision_language.feature_files import suffix_of, write_features
from acclimate.fields.vision_language.features import Features
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.views import Crops

__all__ = ["encode_features"]

FORMAT = 1
"""Of what the pieces depend on."""

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with images done, images in all, and the data set's name."""


@torch.no_grad()
def encode_features(
    path: str | Path,
    model: VisionLanguage,
    images: LabelledImages,
    preprocess: Preprocess,
    *,
    views: int = 1,
    area: float = 0.5,
    mixed: bool = False,
    seed: int = 0,
    simple: Tensor | None = None,
    batch_size: int = 32,
    shard: int = 2048,
    dtype: torch.dtype = torch.float16,
    damaged: Damaged = "error",
    repeats: bool = False,
    encoders: str = "",
    progress: Progress | None = None,
) -> Path:
    """Encode images and write their features as one file, which `read_features` reads; returns its path.

    Finished pieces lie in the folder `<name>-<digest>.parts` beside the file until it is whole; the digest is of
    everything they depend on, so that the same call goes on with them and another begins anew.

    Arguments:
        path: the file, `.safetensors` or `.npz`.
        model: with an image encoder; features of its auxiliary one are written too if it has one. It says where to
            compute: where its text features are.
        images: what to encode, in stored order. Labels are written for whoever scores.
        preprocess: an RGB image of Pillow to `[3, H, W]` in [0, 1], such as `clip.preprocess`.
        views: V >= 1 of each image, itself and V - 1 crops as methods make them; `area`, least share of the image in a
            crop, and `mixed`, whether by AugMix on top, likewise. They follow from `seed` and the image's position.
        simple: text features of the plain prompt, `[K, D]`, written along.
        batch_size: images that are encoded at once, with all their views.
        shard: images in a piece.
        dtype: of what is written. Half precision moves logits of scale 100 by about a thousandth.
        damaged: "error" or "skip", as of `LabelledImages.batches`; of skipped images the file has no row.
        repeats: allow a class name to occur twice, as in ImageNet; `read_features` is to be told as well.
        encoders: a name to tell encoders by that are plain functions, whose weights cannot be looked at.
        progress: called after each batch.

    The model is put into evaluation mode. Raises ValueError, before anything is encoded, for a model without an image
    encoder, another suffix or type, class names that are empty, repeat or are not as many as texts, and texts that do
    not fit; later for features that are zero or not finite; and what reading raises.
    Cost: V forwards of the image encoder and one of the auxiliary one for each image.
    """
    whole(1, views=views, batch_size=batch_size, shard=shard)
    if model.image_encoder is None:
        raise ValueError("found a model without an image encoder, expected one. Its features are what is written here.")
    path = Path(path).expanduser()
    suffix_of(path)
    one = torch.ones(1, views, model.text_features.shape[1], dtype=dtype)
    # what does not fit is told before anything is encoded
    _joined([{"clip": one, "index": torch.zeros(1, dtype=torch.int64)}], images, model, simple, repeats)
    model.eval()
    settings = [FORMAT, views, area, mixed, seed, shard, str(dtype), damaged, encoders]
    identity = json.dumps([*settings, fingerprint(model), images.fingerprint()])
    parts = path.with_name(f"{path.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.parts")
    crops = Crops(count=views, area=(area, 1.0), mixed=mixed)
    work = _Work(model, images, preprocess, crops, seed, batch_size, dtype, damaged, progress)
    found: list[dict[str, Tensor]] = []
    for start in range(0, len(images), shard):
        piece = parts / f"{start:07d}.safetensors"
        known = _read(piece)
        if known is None:
            known = work.piece(start, min(start + shard, len(images)))
            atomic_write(piece, save(known))
        found.append(known)
    write_features(path, _joined(found, images, model, simple, repeats))
    shutil.rmtree(parts)
    return path


def _read(piece: Path) -> dict[str, Tensor] | None:
    """A finished piece; None where there is none, or a broken one."""
    try:
        return load_file(piece) if piece.is_file() else None
    except SafetensorError:
        return None


@dataclass(frozen=True, slots=True)
class _Work:
    """What the pieces have in common."""

    model: VisionLanguage
    images: LabelledImages
    preprocess: Preprocess
    crops: Crops
    seed: int
    batch_size: int
    dtype: torch.dtype
    damaged: Damaged
    progress: Progress | None

    def piece(self, start: int, end: int) -> dict[str, Tensor]:
        """Features of images from `start` to `end`, and which of these have not been skipped: `index` `[m]`."""
        part = replace(self.images, paths=self.images.paths[start:end], labels=self.images.labels[start:end])
        width = self.model.text_features.shape[1]
        clip = [torch.zeros(0, self.crops.count, width, dtype=self.dtype)]
        auxiliary, index = list[Tensor](), [torch.zeros(0, dtype=torch.int64)]
        for batch in part.batches(self.preprocess, batch_size=self.batch_size, seed=None, damaged=self.damaged):
            numbers = batch.index + start
            clip.append(self._encoded(batch.images, numbers, auxiliary))
            index.append(numbers)
            if self.progress is not None:
                self.progress(int(numbers[-1]) + 1, len(self.images), self.images.name)
        found = {"clip": torch.cat(clip), "index": torch.cat(index)}
        return found | ({"auxiliary": torch.cat(auxiliary)} if auxiliary else {})

    def _encoded(self, pictures: Tensor, numbers: Tensor, auxiliary: list[Tensor]) -> Tensor:
        pairs = zip(pictures, numbers.tolist(), strict=True)
        views = torch.stack([self.crops.of(picture, self.seed, number) for picture, number in pairs])
        with self.model.looking(auxiliary=self.model.auxiliary_encoder is not None) as seen:
            self.model(views.to(self.model.text_features.device))
        assert seen.views is not None
        auxiliary += [] if seen.auxiliary is None else [seen.auxiliary.to("cpu", self.dtype)]
        return seen.views.to("cpu", self.dtype)


def _joined(
    found: list[dict[str, Tensor]],
    images: LabelledImages,
    model: VisionLanguage,
    simple: Tensor | None,
    repeats: bool,
) -> Features:
    index = torch.cat([piece["index"] for piece in found])
    if not len(index):
        raise ValueError(f"none of the {len(images)} images of {images.name!r} can be read. Unpack its archive again.")
    auxiliary = [piece["auxiliary"] for piece in found if "auxiliary" in piece]
    return Features(
        clip=torch.cat([piece["clip"] for piece in found]),
        text=model.text_features.cpu(),
        logit_scale=float(model.logit_scale),
        auxiliary=torch.cat(auxiliary) if auxiliary else None,
        simple=simple,
        labels=images.labels[index],
        classes=images.classes,
        repeats=repeats,
        name=images.name,
    )
