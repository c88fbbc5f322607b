"""A rank's state as one file without pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.replicas.hook import DelayedHook
from acclimate.models.files import read_tensors, write_tensors

__all__ = ["load_checkpoint", "save_checkpoint"]

_FORMAT = "2"


def save_checkpoint(training: DeCoSGD | DelayedHook, path: str | Path) -> None:
    """Write weights, error memory, messages under way, base optimiser, controller and estimator of this rank.

    Every rank writes a file of its own after the same iteration. The file is put in place in one move, and holds a
    checksum; size: `4 d (2 + state of the base optimiser)` bytes and n packets for each message under way. Of a
    `DelayedHook` weights and optimiser are left to the script, which saves them at the same moment.

    Raises:
        LinkFault: a message under way does not come.
        OSError: the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_plain(training.state_dict(), tensors))
    write_tensors(Path(path), tensors, {"kind": _kind(training), "format": _FORMAT, "tree": tree})


def load_checkpoint(training: DeCoSGD | DelayedHook, path: str | Path) -> None:
    """Go on from what `save_checkpoint` wrote on this rank, bit for bit where settings are fixed.

    Fixed settings are those that the training was built with; a controller goes on as it was, and asks the policy it
    was built with at its next decision. A file that is refused changes nothing. Files of the format before, which do
    not tell whose they are, are refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one of another rank, number of ranks, model, base optimiser or other entries.
            The other ranks then wait for this one until their timeout.
        Disagreement: other ranks load another iteration.
    """
    tensors, header = read_tensors(path)
    if header.get("kind") != _kind(training) or header.get("format") != _FORMAT:
        raise ValueError(
            f"{path} is no checkpoint of this version of {type(training).__name__}. Expected a file that "
            "save_checkpoint wrote of one."
        )
    training.load_state_dict(_tree(json.loads(header["tree"]), tensors))


def _kind(training: DeCoSGD | DelayedHook) -> str:
    return "wide_area_hook" if isinstance(training, DelayedHook) else "wide_area_checkpoint"


def _plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A nested value as JSON; tensors are put aside under their number."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.reshape(-1) if value.ndim == 0 else value
        return {"tensor": name, "scalar": value.ndim == 0}
    if isinstance(value, dict):
        return {"pairs": [[_plain(key, tensors), _plain(each, tensors)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_plain(each, tensors) for each in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"the base optimiser's state holds a {type(value).__name__}, which a checkpoint cannot keep.")


def _tree(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        found = tensors[value["tensor"]]
        return found[0] if value["scalar"] else found
    if "pairs" in value:
        return {_tree(key, tensors): _tree(each, tensors) for key, each in value["pairs"]}
    if "tuple" in value:
        return tuple(_tree(each, tensors) for each in value["tuple"])
    return [_tree(each, tensors) for each in value["list"]]
