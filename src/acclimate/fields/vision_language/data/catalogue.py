"""The data sets of the two usual tables: where their files are, how large they are, which settings belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CROSS_DOMAIN", "DATASETS", "OUT_OF_DISTRIBUTION", "Facts"]

OUT_OF_DISTRIBUTION = "out-of-distribution"
CROSS_DOMAIN = "cross-domain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a data set beforehand.

    Arguments:
        title: as in tables.
        folders: names that its folder may have, the usual one first.
        images: where in it the images may be, the first that is there.
        split: the file that says which images are of which split; None where folders are classes.
        classes: how many.
        size: images of the test split.
        templates: key of its hand-written prompts in `vision_language.texts`.
        alpha: scale of affinities, as published with TDA and taken over by others.
        beta: their sharpness.
        boost: BoostAdapter's guests; 3, its default, where none is published.
        level: similarity above which COSMIC's paper joins classes in the space of CLIP.
        auxiliary_level: the same in the space of the second encoder.
        group: `OUT_OF_DISTRIBUTION` or `CROSS_DOMAIN`, the table that it is in.
        numbered: whether folders are named by the numbers of classes.
    """

    title: str
    folders: tuple[str, ...]
    images: tuple[str, ...] = (".",)
    split: str | None = None
    classes: int
    size: int
    templates: str
    alpha: float
    beta: float
    boost: int
    level: float
    auxiliary_level: float
    group: str
    numbered: bool = False


_ROW = tuple[str, str, str, str, int, int, str, float, float, int]

_IMAGENET: Mapping[str, _ROW] = {
    "imagenet": ("ImageNet", "imagenet", "images/val val", "", 1000, 50_000, "tip7", 2.0, 5.0, 3),
    "imagenet-a": ("ImageNet-A", "imagenet-adversarial", "imagenet-a", "", 200, 7_500, "tip7", 2.0, 5.0, 3),
    "imagenet-v2": (
        "ImageNet-V2", "imagenetv2 ImageNetV2", "imagenetv2-matched-frequency-format-val", "", 1000, 10_000, "tip7",
        1.0, 8.0, 1,
    ),
    "imagenet-r": ("ImageNet-R", "imagenet-rendition", "imagenet-r", "", 200, 30_000, "tip7", 1.0, 8.0, 3),
    "imagenet-sketch": ("ImageNet-Sketch", "", "images sketch", "", 1000, 50_889, "tip7", 2.363, 7.45, 1),
}  # fmt: skip

_FINE: Mapping[str, _ROW] = {
    "aircraft": ("Aircraft", "fgvc_aircraft", "images", "FGVCAircraft", 100, 3_333, "aircraft", 2.0, 2.0, 2),
    "caltech101": ("Caltech101", "caltech-101", "101_ObjectCategories", "Caltech101", 100, 2_465, "tip7", 5.0, 5.0, 2),
    "cars": ("Cars", "stanford_cars", ".", "StanfordCars", 196, 8_041, "cars", 1.0, 7.0, 3),
    "dtd": ("DTD", "", "images", "DescribableTextures", 47, 1_692, "dtd", 2.0, 3.0, 0),
    "eurosat": ("EuroSAT", "", "2750", "EuroSAT", 10, 8_100, "eurosat", 4.0, 8.0, 0),
    "flowers102": ("Flowers", "oxford_flowers", "jpg", "OxfordFlowers", 102, 2_463, "flowers102", 1.0, 5.0, 0),
    "food101": ("Food", "food-101", "images", "Food101", 101, 30_300, "food101", 1.0, 1.0, 3),
    "pets": ("Pets", "oxford_pets", "images", "OxfordPets", 37, 3_669, "pets", 2.0, 7.0, 0),
    "sun397": ("SUN397", "", "SUN397", "SUN397", 397, 19_850, "tip7", 2.0, 3.0, 1),
    "ucf101": ("UCF101", "", "UCF-101-midframes", "UCF101", 101, 3_783, "ucf101", 3.0, 8.0, 0),
}


_USUAL = (0.85, 0.4)
_LEVELS: Mapping[str, tuple[float, float]] = {
    "imagenet-sketch": (0.85, 0.52),
    "aircraft": (0.85, 0.07),
    "caltech101": (0.75, 0.075),
    "cars": (0.85, 0.5),
    "dtd": (0.7, 0.07),
    "eurosat": (0.85, 0.085),
    "flowers102": (0.75, 0.4),
    "food101": (0.85, 0.85),
    "pets": (0.69, 0.2),
    "sun397": (0.95, 0.15),
    "ucf101": (0.85, 0.15),
}
"""COSMIC's levels in both spaces, where they are not the usual ones."""


def _facts(name: str, row: _ROW, group: str) -> Facts:
    level, auxiliary_level = _LEVELS.get(name, _USUAL)
    title, folders, images, split, classes, size, templates, alpha, beta, boost = row
    return Facts(
        title=title,
        folders=tuple(dict.fromkeys((*folders.split(), name))),
        images=(*images.split(), "."),
        split=f"split_zhou_{split}.json" if split else None,
        classes=classes,
        size=size,
        templates=templates,
        alpha=alpha,
        beta=beta,
        boost=boost,
        level=level,
        auxiliary_level=auxiliary_level,
        group=group,
        numbered=name == "imagenet-v2",
    )


DATASETS: Mapping[str, Facts] = {
    **{name: _facts(name, row, OUT_OF_DISTRIBUTION) for name, row in _IMAGENET.items()},
    **{name: _facts(name, row, CROSS_DOMAIN) for name, row in _FINE.items()},
}
"""By name, in the order of the published tables."""
