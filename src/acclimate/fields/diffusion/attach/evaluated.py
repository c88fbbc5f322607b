"""A transformer every forward of which is one evaluation of an exchange, until it is detached."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, Self

import torch
from torch import nn

from acclimate.fields.diffusion.attach.branches import Branches
from acclimate.fields.diffusion.attach.route import refuse_copies
from acclimate.fields.diffusion.exchange.exchange import Exchange
from acclimate.fields.diffusion.residual.books import Stats

__all__ = ["Evaluated"]

_COPYING = ("__deepcopy__", "__reduce_ex__")


class Evaluated:
    """Wraps the forward of a transformer on its instance; leaving it as a context manager detaches.

    Arguments:
        transformer: in evaluation mode when it is called.
        exchange: what its self-attention goes through.
        branches: forwards in each step; see `Branches`.

    Attributes:
        exchange: as given.
    """

    def __init__(self, transformer: nn.Module, exchange: Exchange, branches: int | None = None) -> None:
        self.exchange = exchange
        self._branches = Branches(branches)
        self._undo: list[Callable[[], object]] = [exchange.close, self._wrap(transformer)]

    def reset(self) -> None:
        """Before each image, on all ranks: forget all bases, start with the warm-up and branch 0."""
        self.exchange.reset()
        self._branches.reset()

    @contextmanager
    def image(self) -> Iterator[Self]:
        """One image: `reset`, then whatever calls the transformer; if that fails here, the other ranks are told."""
        self.reset()
        try:
            yield self
        except BaseException as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Give the image up because of what went wrong here, and tell all other ranks; `reset` begins the next."""
        self.exchange.fail(error)

    def branch(self, number: int | None) -> None:
        """Say which branch all forwards from now on belong to; None to count them again.

        Raises:
            ValueError: below 0.
        """
        self._branches.choose(number)

    def stats(self) -> Stats:
        """Bytes and errors since the last reset."""
        return self.exchange.stats()

    def detach(self) -> None:
        """Give the transformer back what it had before, and close the exchange; a second call does nothing.

        Whatever else has wrapped the transformer or its attentions in the meantime must be taken off first.
        """
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def check(self, given: Mapping[str, Any]) -> None:
        """ValueError for arguments of a forward that cannot be exchanged."""

    def _wrap(self, transformer: nn.Module) -> Callable[[], object]:
        before, forward = vars(transformer).get("forward"), transformer.forward
        signature = inspect.signature(forward)

        @wraps(forward)
        def evaluated(*args: Any, **kwargs: Any) -> Any:
            try:
                given = signature.bind(*args, **kwargs).arguments
                branch = self._branches.next(given.get("timestep"), given)
                with torch.no_grad(), self.exchange.evaluation(branch):
                    if transformer.training:
                        raise ValueError(
                            "The transformer is in training mode, but no gradient is exchanged. Call eval()."
                        )
                    self.check(given)
                    return forward(*args, **kwargs)
            except BaseException as error:
                self.fail(error)
                raise

        transformer.forward = torch.compiler.disable(evaluated)  # packets are bytes, which no compiler traces
        for name in _COPYING:
            setattr(transformer, name, refuse_copies)

        def unwrap() -> None:
            for name in ("forward", *_COPYING):
                delattr(transformer, name)
            if before is not None:
                transformer.forward = before

        return unwrap
