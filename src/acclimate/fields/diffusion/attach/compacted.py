"""A transformer whose self-attention goes through an exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from acclimate.fields.diffusion.attach.evaluated import Evaluated
from acclimate.fields.diffusion.attach.gathering import Gathering
from acclimate.fields.diffusion.attach.hooks import attach_hooks
from acclimate.fields.diffusion.attach.inputs import digest
from acclimate.fields.diffusion.attach.plans import plan_of
from acclimate.fields.diffusion.attach.route import Route
from acclimate.fields.diffusion.exchange.envelope import PeerFault
from acclimate.fields.diffusion.exchange.exchange import Exchange
from acclimate.fields.diffusion.residual.books import Stats
from acclimate.wire.faults import Disagreement

__all__ = ["Compacted", "CompactedStats"]


@dataclass(frozen=True, slots=True)
class CompactedStats(Stats):
    """Bytes and errors since the last reset.

    Attributes:
        gathered: bytes that this rank sent to bring the output of the model together, envelopes included, on top of
            `sent` and `overhead`; 0 if simulated.
    """

    gathered: int = 0


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
        """Before each image, on all ranks, which wait for each other: forget all bases, start with the warm-up.

        Raises:
            LostPeer: a rank is gone; start all of them again.
            LinkFault: the image before failed on some ranks, and was complete on others, which may be about to begin
                another one; on all ranks. Reset all of them again.
        """
        try:
            super().reset()
        except (Disagreement, PeerFault):  # on all ranks
            if self._gather is not None:
                self._gather.reset()
            raise
        if self._gather is not None:
            self._gather.reset()

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        if self._gather is not None:
            self._gather.fail(error)

    def stats(self) -> CompactedStats:
        """Bytes and errors since the last reset."""
        found = super().stats()
        known = {field.name: getattr(found, field.name) for field in fields(Stats)}
        return CompactedStats(**known, gathered=0 if self._gather is None else self._gather.sent)

    def check(self, given: Mapping[str, Any]) -> None:
        """Note what all ranks must have been given alike.

        Raises:
            ValueError: an argument that holds something for each token, where each rank has its own tokens only.
        """
        whole = [name for name in self._plan.whole if self._route.sharded and given.get(name) is not None]
        if whole:
            raise ValueError(
                f"The transformer was given {', '.join(whole)} for whole sequences; expected None, since each rank "
                "holds a part of the tokens."
            )
        if self._gather is not None:
            self._gather.inputs = digest(given)
