"""The published potpourri of ImageNet's variants, from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from acclimate.streams.dataset import Dataset
from acclimate.streams.image_folder import image_folder
from acclimate.streams.imagenet_c import imagenet_c
from acclimate.streams.mixed import Domain
from acclimate.streams.segments import CLEAN, Segment

__all__ = ["POTPOURRI", "Ingredients", "potpourri_domains"]

POTPOURRI = ("potpourri", "potpourri+")
"""Collections of data sets that `open_stream` knows, each in a folder: `potpourri:DIR`."""

_CORRUPTED, _SOURCE = "imagenet-c", "imagenet"
_VARIANTS = {"imagenet-r": 30_000, "imagenet-sketch": 50_889, "imagenet-a": 7_500}
_OPTIONAL = "imagenet-v2"
_VALIDATION = 50_000


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a potpourri is mixed of.

    Arguments:
        domains: the corruptions, the variants that are there, and the source where it is part of it.
        classes: the label space of all of them.
        published: images of each domain in the published composition, -1 where it has none.
    """

    domains: tuple[Domain, ...]
    classes: tuple[str, ...]
    published: tuple[int, ...]


def potpourri_domains(root: Path, shifts: Sequence[Segment], *, source: bool) -> Ingredients:
    """ImageNet-C, -R, -Sketch and -A, -V2 where it is there, and the clean validation images as the source.

    | folder | what | preprocessing |
    |---|---|---|
    | `imagenet-c` | `<corruption>/<severity>/<class>/<image>`, 50,000 of each | taken as they are, 224x224 |
    | `imagenet-r`, `imagenet-a` | 30,000 and 7,500 images of 200 classes each | shorter side 256, middle 224x224 |
    | `imagenet-sketch` | 50,889 images | the same |
    | `imagenet-v2` | may be left out; class folders are numbers or synsets | the same |
    | `imagenet` | 50,000 validation images, of `potpourri+` only | the same |

    The classes of `imagenet-c` are the label space; those of the others are found in it by the names of their folders,
    such as n01440764. Where only theirs are numbers, a number is the place of the class in it. No class is masked: an
    image of 200 classes is answered with one of all.

    Raises:
        FileNotFoundError: a folder that is not there.
        ValueError: a class folder that ImageNet-C does not have, or a corruption that is not there.

    Source: the composition that MoETTA was published with; -V2 is no part of it and is ours.
    """
    needed = [_CORRUPTED, *_VARIANTS, *([_SOURCE] if source else [])]
    missing = [name for name in needed if not (root / name).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{root} lacks {', '.join(missing)}; expected the folders {', '.join(needed)} of a "
            f"potpourri{'+' if source else ''}, and {_OPTIONAL} if you like."
        )
    corrupted = imagenet_c(root / _CORRUPTED)
    for shift in shifts:
        corrupted.read(torch.zeros(1, dtype=torch.int64), shift)
    domains = [Domain(shift.name, corrupted, shift) for shift in shifts]
    published = [_VALIDATION] * len(domains)
    for name in (*_VARIANTS, _OPTIONAL):
        if (root / name).is_dir():
            domains.append(_variant(root / name, name, corrupted.classes))
            published.append(_VARIANTS.get(name, -1))
    if source:
        domains.append(replace(_variant(root / _SOURCE, CLEAN.name, corrupted.classes), is_source=True))
        published.append(_VALIDATION)
    return Ingredients(tuple(domains), corrupted.classes, tuple(published))


def _variant(folder: Path, name: str, classes: tuple[str, ...]) -> Domain:
    found: Dataset = replace(image_folder(folder), name=folder.name)
    numbers = {each: number for number, each in enumerate(classes)}
    if all(each.isdecimal() for each in found.classes) and not any(each.isdecimal() for each in classes):
        numbers = {each: int(each) for each in found.classes if int(each) < len(classes)}
    strange = [each for each in found.classes if each not in numbers]
    if strange:
        raise ValueError(
            f"{folder} has {len(strange)} class folders that {_CORRUPTED} does not have, such as {strange[0]!r}; "
            f"expected some of its {len(classes)}, such as {classes[0]!r}. Name folders as it does."
        )
    return Domain(name, found, labels=torch.tensor([numbers[each] for each in found.classes]))
