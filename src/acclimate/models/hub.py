"""A checkpoint of `transformers`, by hub name or local folder, and what can be read from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from acclimate.streams.shared import require

__all__ = ["Checkpoint"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint is: a name on the hub, or a folder that `save_pretrained` wrote; both are read alike."""

    name: str
    revision: str | None
    local_files_only: bool

    @classmethod
    def at(cls, name_or_folder: str | Path, revision: str | None, local_files_only: bool) -> Checkpoint:
        """ValueError for a path that is no folder."""
        name = str(name_or_folder)
        if isinstance(name_or_folder, Path) or name.startswith(("/", ".", "~")):
            folder = Path(name).expanduser()
            if not folder.is_dir():
                raise ValueError(
                    f"There is no folder {folder.absolute()}, expected one that save_pretrained wrote. Pass its path, "
                    "or a name on the hub such as openai/clip-vit-base-patch16."
                )
            name = str(folder)
        return cls(name, revision, local_files_only)

    def model(self, dtype: torch.dtype, *, fresh: tuple[str, ...] = (), exact: bool = False) -> Any:
        """The model, in evaluation mode. ValueError if the checkpoint lacks some of its weights.

        Arguments: `fresh`, how the names begin of weights that it may lack; `exact`, whether weights are refused that
        the model has no place for.
        """
        reader = _library().AutoModel.from_pretrained
        try:
            model, found = self._read(reader, "model", dtype=dtype, output_loading_info=True)
        except RuntimeError as error:
            raise ValueError(
                f"the weights of {self.name} are not of the shapes that its config.json says ({_told(error)}). Save or "
                "fetch it again."
            ) from error
        missing = sorted(name for name in found["missing_keys"] if not name.startswith(fresh))
        if missing:
            raise ValueError(
                f"{self.name} lacks {len(missing)} weights of {type(model).__name__}, such as {missing[0]}, which "
                "would be random. Pass a checkpoint that has them, or wrap the model in a callable of your own."
            )
        unused = sorted(found["unexpected_keys"])
        if exact and unused:
            raise ValueError(
                f"{self.name} has {len(unused)} weights that {type(model).__name__} has no place for, such as "
                f"{unused[0]}, so it is another model. Pass a checkpoint of {type(model).__name__} alone."
            )
        return model.eval()

    def image_settings(self) -> dict[str, Any]:
        """The entries of its preprocessor file; without one, which is logged, none."""
        reader = _library().image_processing_base.ImageProcessingMixin.get_image_processor_dict
        try:
            return self._read(reader, "preprocessor")[0]
        except ValueError as error:
            _log.warning("images are normalised as is usual for such models, since %s", error)
            return {}

    def tokenizer(self, entries: int) -> Any:
        """Its tokenizer, as fast as it comes, for a model of so many tokens.

        ValueError for one with less than half of them: without its files, the library makes one that knows nothing.
        """
        found = self._read(_library().AutoTokenizer.from_pretrained, "tokenizer")
        if len(found) < entries / 2:
            raise ValueError(
                f"the tokenizer of {self.name} has {len(found)} entries and the model {entries} tokens, so its "
                "vocabulary is missing or another model's. Fetch tokenizer.json, or all files of the checkpoint, again."
            )
        return found

    def _read(self, reader: Callable[..., Any], what: str, **options: Any) -> Any:
        where = {"revision": self.revision, "local_files_only": self.local_files_only}
        try:
            return reader(self.name, **where, **options)
        except ImportError as error:
            raise ImportError(f"the {what} of {self.name} needs another package: {_told(error)}") from error
        except (OSError, ValueError, SafetensorError) as error:
            here = Path(self.name).is_dir()
            remedy = (
                "Expected a folder that save_pretrained wrote, with model, tokenizer and preprocessor"
                if here
                else "Where there is no network, or none is allowed, pass the path of a local folder that "
                f"save_pretrained wrote, or fetch it beforehand: hf download {self.name}"
            )
            raise ValueError(f"found no {what} at {self.name} ({_told(error)}). {remedy}.") from error


def _told(error: Exception) -> str:
    """The first sentence of what `transformers` says, in one line."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).strip().rstrip(".")


def _library() -> Any:
    return require("transformers", "Reading published encoders", "vision-language")
