"""The way in: adapt a model, or resume an adaptation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from acclimate.adapted import Adapted
from acclimate.core.budget import Budget
from acclimate.core.memory import MemoryPolicy, policies
from acclimate.core.method import Method, methods
from acclimate.core.normalization import Normalization, normalizations
from acclimate.core.output import Selector
from acclimate.core.storage import fingerprint, read_state

if TYPE_CHECKING:
    from acclimate.core.guard import Guard

__all__ = ["Replicas", "adapt", "load"]


class Replicas(Protocol):
    """What `adapt` hands an adapted model to, so that it learns together with others."""

    def attach(self, adapted: Adapted) -> None:
        """Called once, before the first batch."""
        ...


def adapt(
    model: nn.Module,
    method: str | Method = "auto",
    *,
    normalization: str | Normalization | None = None,
    memory: str | MemoryPolicy | None = None,
    guard: str | Guard | None = "default",
    budget: Budget | None = None,
    output: Selector = None,
    answer: str = "before",
    replicas: Replicas | None = None,
    seed: int = 0,
) -> Adapted:
    """Wrap a model so that it adapts, without labels, to the stream of inputs it answers.

    The model itself is never changed and comes back from `unwrap()`. Call the result as the model was
    called; it returns what the model returned.

    Arguments: `method`, a name (`"tent"`), a preset (`"palm:stable"`) or an instance (`Tent(learning_rate=1e-4)`), by
    default the one that chooses statistics and learning by what it sees; `normalization`, how batch norms get their
    statistics, instead of the method's own choice; `memory`, how backward keeps what it needs ("stock", "exact",
    "quantized:4-bit", "surgeon" or an instance), likewise; `guard`, what decides whether the adapted model or the
    source answers and whether a step is kept: "default", others by name, several joined by "+", or None for none;
    `budget`, what the adaptation may take: on the first batch the mildest savings that fit are chosen, and `plan` tells
    which; `output`, where the logits `[N, C, ...]` are in what the model returns, if not the tensor itself, `.logits`
    or `["logits"]`; `answer`, logits from "before" or "after" the update, the latter at one more forward; `replicas`,
    what brings replicas of this adaptation together, such as `acclimate.wide_area.Fleet`; `seed`, a whole number, of
    the private generators.

    Raises ValueError if the model has nothing that the method adapts or cannot be cloned.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> adapted = adapt(net, "tent")
    >>> adapted(torch.rand(8, 3, 8, 8)).shape
    torch.Size([8, 2])
    >>> adapted.last.updated
    True
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"adapt takes a torch.nn.Module, found {type(model).__name__}.")
    if isinstance(model, Adapted):
        raise ValueError("this model adapts already. Adapt what its unwrap() returns.")
    built = methods.build(method)
    if normalization is not None:
        built = dataclasses.replace(built, normalization=normalizations.build(normalization))
    if memory is not None:
        built = dataclasses.replace(built, memory=policies.build(memory))
    adapted = Adapted(model, built, output, answer, seed, budget=budget, guard=_guard(guard))
    if replicas is not None:
        replicas.attach(adapted)
    return adapted


@torch.inference_mode(False)
def load(
    model: nn.Module,
    path: str | Path,
    *,
    method: str | Method | None = None,
    guard: Guard | None = None,
    budget: Budget | None = None,
    output: Selector = None,
    strict: bool = True,
) -> Adapted:
    """Resume an adaptation saved by `Adapted.save`, bit for bit as if it had never stopped.

    Arguments: `model`, the same source model; `method` and `guard`, needed only if the saved ones were built with
    objects that a file cannot hold, or are of a kind that is not registered; `budget`, as in `adapt` (the file has the
    policy that was chosen, not the budget); `strict=False` accepts another base model of the same shapes.

    Raises FileNotFoundError for a missing file and ValueError for a damaged one, another base, or a state
    that does not fit.
    """
    file = Path(path)
    tensors, header = read_state(file)
    _check(header, file)
    if strict and header["base"] != (found := fingerprint(model)):
        raise ValueError(
            f"{file} was saved over another model: its base is {header['base'][:12]}, this one is {found[:12]}. "
            "Load the weights it was adapted from, or pass strict=False to take it over on purpose."
        )
    built = methods.build(header["method"] if method is None else method)
    if method is not None:
        if budget is not None or built.memory == policies.build("stock"):  # a plan may have chosen another policy since
            built = dataclasses.replace(built, memory=policies.build(header["method"].get("memory", "stock")))
        if built.config() != header["method"]:
            raise ValueError(
                f"{file} was saved with {header['method']}, found {built.config()}. Pass the same settings."
            )
    watching = _guard(header.get("guard") if guard is None else guard)
    if guard is not None and guard.config() != header.get("guard"):
        raise ValueError(
            f"{file} was saved under the guard {header.get('guard')}, found {guard.config()}. Pass the same settings."
        )
    adapted = Adapted(
        model, built, output, header["answer"], header["seed"], resumed=True, budget=budget, guard=watching
    )
    adapted.state.resume(tensors, header["scalars"])
    return adapted


def _check(header: Mapping[str, Any], path: Path) -> None:
    kinds = {"method": dict, "answer": str, "seed": int, "scalars": dict, "base": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(header.get(name), kind)]
    if wrong:
        raise ValueError(f"the header of {path} lacks or garbles {', '.join(wrong)}. Restore it from a copy.")


def _guard(spec: Any) -> Guard | None:
    """Imported late, so that importing the library stays quick."""
    from acclimate.core.guard import build_guard

    return build_guard(spec)
