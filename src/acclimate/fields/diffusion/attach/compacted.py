"""A transformer whose self-attention goes through an exchange."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from acclimate.fields.diffusion.attach.evaluated import Evaluated
from acclimate.fields.diffusion.attach.gathering import Gathering
from acclimate.fields.diffusion.attach.hooks import attach_hooks
from acclimate.fields.diffusion.attach.plans import plan_of
from acclimate.fields.diffusion.attach.route import Route
from acclimate.fields.diffusion.exchange.exchange import Exchange

__all__ = ["Compacted"]


class Compacted(Evaluated):
    """What `compact` returns; leaving it as a context manager detaches.

    Arguments:
        transformer: one that there is a plan for, in evaluation mode when it is called.
        exchange: for its self-attention.
        gather: the tokens of all ranks from those of this one; None where the exchange takes whole sequences.
        branches: forwards in each step; see `Branches`.

    Raises:
        ValueError: no plan for the transformer, or attentions that are not as its class makes them.
    """

    def __init__(
        self,
        transformer: nn.Module,
        exchange: Exchange,
        gather: Gathering | None = None,
        branches: int | None = None,
    ) -> None:
        self._plan, self._route, self._gather = plan_of(transformer), Route(exchange, gather), gather
        attentions = self._plan.each_attention(transformer)
        super().__init__(transformer, exchange, branches)
        if gather is not None:
            self._undo.append(gather.close)
        for layer, attn in enumerate(attentions):
            before = attn.processor
            attn.set_processor(self._plan.processor(self._route, layer))
            self._undo.append(lambda attn=attn, before=before: attn.set_processor(before))
        self._undo += [handle.remove for handle in attach_hooks(transformer, self._plan, self._route)]

    def reset(self) -> None:
        """Before each image, on all ranks: forget all bases, start with the warm-up and branch 0.

        Raises:
            LostPeer: a rank is gone; start all of them again.
        """
        super().reset()
        if self._gather is not None:
            self._gather.reset()

    @contextmanager
    def evaluation(self, branch: int) -> Iterator[None]:
        """One forward; if it fails, the other ranks do as well."""
        try:
            with super().evaluation(branch):
                yield
        except BaseException as error:
            if self._gather is not None:
                self._gather.fail(error)
            raise

    def check(self, given: Mapping[str, Any]) -> None:
        """ValueError for an argument that holds something for each token, where each rank has its own tokens only."""
        whole = [name for name in self._plan.whole if self._route.sharded and given.get(name) is not None]
        if whole:
            raise ValueError(
                f"The transformer was given {', '.join(whole)} for whole sequences; expected None, since each rank "
                "holds a part of the tokens."
            )
