"""Features of a data set for a reproduction: from a file, or else of its images, encoded once and kept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from acclimate.fields.vision_language.data.catalogue import DATASETS, OUT_OF_DISTRIBUTION
from acclimate.fields.vision_language.data.images import LabelledImages
from acclimate.fields.vision_language.data.opening import facts_of, open_images
from acclimate.fields.vision_language.encoding import encode_features
from acclimate.fields.vision_language.feature_files import SUFFIXES, read_features
from acclimate.fields.vision_language.features import Features
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.texts.descriptions import load_descriptions
from acclimate.fields.vision_language.texts.matrix import text_matrix

if TYPE_CHECKING:
    from acclimate.fields.vision_language.encoders.clip import Clip
    from acclimate.fields.vision_language.encoders.images import ImageEncoder

__all__ = ["Progress", "Supplied", "Supply"]

FORMAT = 1
"""Of what the name of an encoded file depends on."""

OPEN_CLIP = "open_clip:"
"""How names begin that `load_open_clip` loads, such as `open_clip:RN50-quickgelu:openai`."""

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with what is done, of how much, and what it is."""


@dataclass(frozen=True, slots=True)
class Supplied:
    """Features, the SHA-256 of their file, and what they are of in words."""

    features: Features
    digest: str
    told: str


@dataclass(frozen=True, kw_only=True)
class Supply:
    """Where features come from; paths are absolute, so that they are told from words where errors name them.

    Arguments:
        features: a folder of files `<data set>.safetensors` or `.npz`, which go first; None for none.
        data: a folder of data sets, whose images are encoded; None for none.
        keep: a folder for what was encoded.
        model: of `load_clip`, a name on the hub or a folder; or `OPEN_CLIP`, an architecture, a colon and weights.
        auxiliary: of `load_auxiliary`, likewise; None for none.
        descriptions: a folder of files `<data set>.json` with sentences of each class, used beside the templates.
        views: of each image that is encoded.
        size: at most so many images are encoded, evenly spaced.
        device: where to encode.
        progress: called while encoding.

    Raises FileNotFoundError for descriptions of which none is of a data set.
    """

    features: Path | None
    data: Path | None
    keep: Path
    model: str
    auxiliary: str | None
    descriptions: Path | None = None
    views: int = 16
    size: int | None = None
    device: str = "cpu"
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.descriptions is not None and not any(map(self._description, DATASETS)):
            raise FileNotFoundError(
                f"there are no descriptions in {self.descriptions}, expected files such as {next(iter(DATASETS))}.json."
            )

    def find(self, name: str) -> Supplied | str:
        """The features of a data set, or why there are none, without the paths of this machine.

        Raises ValueError and ImportError for encoders that cannot be loaded.
        """
        given = [self.features / f"{name}{suffix}" for suffix in SUFFIXES] if self.features is not None else []
        path = next((each for each in given if each.is_file()), None)
        try:
            images = None if path is not None else self._images(name)
        except (FileNotFoundError, ValueError) as reason:
            return self._plain(reason)
        if images is not None and not self._place(images).is_file():
            _ = self._encoders  # what is wrong with these is no data set's fault
        try:
            return self._read(path, name) if images is None else self._read(self._encoded(images), name, images)
        except ValueError as reason:
            return self._plain(reason)

    def _read(self, path: Path | None, name: str, images: LabelledImages | None = None) -> Supplied:
        assert path is not None
        found, told = read_features(path, name=name, repeats=_repeats(name)), "features as given"
        if found.labels is None:
            raise ValueError(f"{path} has no labels, which answers are scored by; expected an array 'labels' [n]")
        if images is not None:
            left = len(images) - len(found)
            told = self._told(images) + (f", {left} files left out, which are missing or damaged" if left else "")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Supplied(found, digest, told)

    def _plain(self, reason: Exception) -> str:
        text = str(reason)
        folders = {"--features": self.features, "--data": self.data, "--out": self.keep.parent}
        for name, folder in folders.items():
            if folder is not None:
                text = re.sub(rf"{re.escape(str(folder))}(?![\w-])", name, text)
        return text

    def _images(self, name: str) -> LabelledImages:
        if self.data is None:
            raise FileNotFoundError(f"there is no {name}{SUFFIXES[0]} or {name}{SUFFIXES[1]} in {self.features}")
        images = open_images(name, self.data)
        return images if self.size is None else images.subset(self.size)

    def _told(self, images: LabelledImages) -> str:
        second = f" and {Path(self.auxiliary).name}" if self.auxiliary is not None else ""
        texts = "templates and descriptions" if self._description(images.name) is not None else "templates"
        return f"encoded by {Path(self.model).name}{second}, texts of {texts} {facts_of(images.name).templates!r}"

    def _place(self, images: LabelledImages) -> Path:
        """Where their features are kept; the name depends on all that these do."""
        description = self._description(images.name)
        described = None if description is None else hashlib.sha256(description.read_bytes()).hexdigest()
        second = None if self.auxiliary is None else _stamp(self.auxiliary)
        identity = [FORMAT, _stamp(self.model), second, self.views, described, images.fingerprint()]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return self.keep / f"{images.name}-{digest[:12]}.safetensors"

    def _encoded(self, images: LabelledImages) -> Path:
        path, description = self._place(images), self._description(images.name)
        if path.is_file():
            return path
        clip, auxiliary = self._encoders
        names, encode = images.classes, clip.encode_text
        sentences = None if description is None else load_descriptions(description, names, others=True)
        templates, repeats = facts_of(images.name).templates, _repeats(images.name)
        text = text_matrix(encode, names, templates=templates, descriptions=sentences, repeats=repeats)
        simple = text_matrix(encode, names, templates="simple", repeats=repeats)
        model = VisionLanguage(clip, text, logit_scale=clip.logit_scale, auxiliary=auxiliary).to(self.device).eval()

        def tell(done: int, total: int, name: str) -> None:
            if self.progress is not None:
                self.progress(done, total, f"encoding {name}")

        return encode_features(
            path,
            model,
            images,
            clip.preprocess,
            views=self.views,
            simple=simple.cpu(),
            damaged="skip",
            repeats=repeats,
            progress=tell,
        )

    def _description(self, name: str) -> Path | None:
        path = None if self.descriptions is None else self.descriptions / f"{name}.json"
        return path if path is not None and path.is_file() else None

    @cached_property
    def _encoders(self) -> tuple[Clip, ImageEncoder | None]:
        from acclimate.fields.vision_language.encoders.auxiliary import load_auxiliary
        from acclimate.fields.vision_language.encoders.clip import load_clip
        from acclimate.fields.vision_language.encoders.openclip import load_open_clip

        auxiliary = None if self.auxiliary is None else load_auxiliary(self.auxiliary, device=self.device)
        if not self.model.startswith(OPEN_CLIP):
            return load_clip(self.model, device=self.device), auxiliary
        name, _, pretrained = self.model.removeprefix(OPEN_CLIP).partition(":")
        return load_open_clip(name, pretrained or None, device=self.device), auxiliary


def _repeats(name: str) -> bool:
    """Whether two classes may have one name, as two of the thousand that ImageNet shares with its variants."""
    return facts_of(name).group == OUT_OF_DISTRIBUTION


def _stamp(name: str) -> list[object]:
    """What tells a checkpoint from others without reading it: its name on the hub, or its files' sizes and times."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return [name]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [[path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
