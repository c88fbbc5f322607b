"""Merged models as one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acclimate.core.storage import atomic_write
from acclimate.fields.recommendation.merging.merged import Merged, merge
from acclimate.fields.recommendation.models.ranker import Ranker
from acclimate.fields.recommendation.models.registry import build
from acclimate.models.files import read_tensors, write_tensors

__all__ = ["load_member", "load_merged", "save_member", "save_merged"]

_INDEX = "merged.json"


def save_merged(model: Merged, folder: str | Path) -> Path:
    """Write each member's weights, how they are built, and how they are merged; the index last."""
    folder = Path(folder).expanduser()
    names = [f"member-{place}.safetensors" for place in range(len(model.members))]
    for member, name in zip(model.members, names, strict=True):
        save_member(member, folder / name)
    index = {"format": 1, "how": model.how, "weights": model.weights.double().tolist(), "members": names}
    atomic_write(folder / _INDEX, json.dumps(index, indent=1).encode())
    return folder


def load_merged(folder: str | Path, members: Sequence[nn.Module] | None = None) -> Merged:
    """What `save_merged` wrote.

    Arguments: `members`, models of the same architectures, in their order, whose weights are filled in place; needed
    unless all are from `build`.

    Raises FileNotFoundError for a folder without an index, ValueError for one that cannot be read, and where members
    are needed or of other number or architecture.
    """
    folder = Path(folder).expanduser()
    path = folder / _INDEX
    if not path.is_file():
        raise FileNotFoundError(f"there is no {_INDEX} in {folder}, expected a folder that save_merged wrote.")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        names, how, weights = list(told["members"]), str(told["how"]), torch.tensor(told["weights"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Save the merged model anew.") from error
    if members is not None and len(members) != len(names):
        raise ValueError(f"found {len(members)} members, expected the {len(names)} that {folder} holds.")
    given: Sequence[nn.Module | None] = members or [None] * len(names)
    loaded = [load_member(folder / Path(name).name, each) for name, each in zip(names, given, strict=True)]
    return merge(loaded, how, weights=None if bool((weights == weights[0]).all()) else weights)


def save_member(model: nn.Module, path: Path) -> None:
    """Weights, and how `build` makes the model, if it is one of its own."""
    told: dict[str, str] = {}
    if isinstance(model, Ranker):
        made = {"name": model.name, "sizes": model.sizes, "width": model.width, "options": model.options()}
        told["built"] = json.dumps(made)
    write_tensors(path, model.state_dict(), told)


def load_member(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """What `save_member` wrote, in evaluation mode; into `model`, where it is not from `build`. Errors as above."""
    tensors, header = read_tensors(path)
    if model is None:
        if "built" not in header:
            raise ValueError(
                f"{path} holds weights of a model of your own. Give its architecture, as in "
                "load_merged(folder, members=[...])."
            )
        made: dict[str, Any] = json.loads(header["built"])
        model = build(made["name"], made["sizes"], width=made["width"], **made["options"])
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights of {path} do not fit {type(model).__name__}: {error}") from error
    return model.eval()
