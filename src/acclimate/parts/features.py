"""What the classifier sees: the input of the model's head."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from torch import Tensor, nn

from acclimate.anatomy import head
from acclimate.core.state import State

__all__ = ["features", "require_head"]


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
