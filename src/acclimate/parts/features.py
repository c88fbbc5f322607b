"""What the classifier sees: the input of the model's head."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.anatomy import head
from acclimate.core.state import State

__all__ = ["encode", "features", "fed", "require_head", "rows_of_head", "unit"]


def require_head(state: State) -> nn.Linear:
    """The model's classifier. ValueError if there is no linear layer."""
    found = head(state.model)
    state.require(found is not None, "what a linear classifier is fed")
    assert found is not None
    return found[1]


@contextlib.contextmanager
def features(state: State) -> Generator[list[Tensor]]:
    """Within this block each forward of the model appends what its head was fed, `[N, D]`.

    ValueError if that is something else than one vector for each row.
    """
    classifier, seen = require_head(state), list[Tensor]()

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].ndim != 2:
            raise ValueError(
                f"the last linear layer is fed {list(inputs[0].shape)}, expected one vector [N, D] for each row: it is "
                "no classifier of whole inputs. Choose a method that needs no linear head."
            )
        seen.append(inputs[0])

    handle = classifier.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def encode(state: State, x: Tensor, *, answering: bool = True, learning: bool = False) -> tuple[Tensor, Tensor]:
    """One forward: what the head was fed, `[N, D]`, and the logits, `[N, C]`. ValueError where these are no pair."""
    with features(state) as seen:
        logits = state.forward(x, answering=answering, learning=learning)
    return fed(seen, logits, x), logits


def fed(seen: list[Tensor], logits: Tensor, x: Tensor) -> Tensor:
    """What the head was fed last, `[N, D]`. ValueError where it is no pair with the logits `[N, C]` of `x`."""
    if not seen or len(seen[-1]) != len(x) or logits.ndim != 2:
        found = list(seen[-1].shape) if seen else "nothing"
        raise ValueError(
            f"the logits are {list(logits.shape)} and the last linear layer is fed {found}, expected [N, C] and [N, D] "
            f"for {len(x)} rows: it is no classifier of whole inputs. Choose a method that needs no linear head."
        )
    return seen[-1]


def rows_of_head(state: State, found: Tensor, logits: Tensor) -> Tensor:
    """The head's weight `[C, D]`, without gradient. ValueError unless it takes the features found to these logits."""
    weight = require_head(state).weight.detach()
    if logits.shape[1] != len(weight) or found.shape[1] != weight.shape[1]:
        raise ValueError(
            f"the logits are {list(logits.shape)} and the features {list(found.shape)}, but the last linear layer has "
            f"a weight {list(weight.shape)}, so it is not the classifier. Choose a method that needs no linear head."
        )
    return weight


def unit(vectors: Tensor) -> Tensor:
    """Each row at length 1, in at least float32: `[..., D]`."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)
