"""What the attentions of one transformer share: the exchange, and how the sequence is cut over devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from torch import Tensor

from acclimate.fields.diffusion.attach.sequence import by_device, by_stretch
from acclimate.fields.diffusion.exchange.exchange import Exchange

__all__ = ["Route", "refuse_copies"]


def refuse_copies(*given: object) -> NoReturn:
    """ValueError, in place of copying or pickling what leads to an exchange: the copy would go through the original."""
    raise ValueError(
        "found a copy or a pickle of a compacted transformer, or of a part of it; expected a plain one, since its "
        "exchange stays where it is. Copy it before compact() or after detach(), or save its state_dict()."
    )


class Route:
    """The way from an attention to the exchange and back.

    Arguments:
        exchange: what brings queries together with the keys and values of all devices.
        gather: the shards `[B, n, C]` of all ranks, given that of this rank, as one sequence `[B, W n, C]`. None where
            this process holds whole sequences, as for a simulated exchange.

    Attributes:
        lengths: tokens of text (where the transformer keeps it in its sequence) and image, over all devices, as the
            first block of the current forward saw them.
    """

    def __init__(self, exchange: Exchange, gather: Callable[[Tensor], Tensor] | None = None) -> None:
        self.exchange = exchange
        self.gather = gather
        self.lengths: tuple[int, ...] = ()

    __deepcopy__ = __reduce_ex__ = refuse_copies

    @property
    def sharded(self) -> bool:
        """Whether this process holds its own share of the tokens only."""
        return self.gather is not None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, layer: int, lengths: Sequence[int]) -> Tensor:
        """Self-attention over the tokens of all devices.

        Arguments:
            query, key, value: `[B, n, H, D]`, normalised and rotated: own tokens if `sharded`, else all.
            layer: number of the attention, the same on all devices.
            lengths: tokens of the stretches that make up the sequence here, in this order.

        Returns:
            What each query gathered, `[B, n, H, D]`.

        Raises:
            ValueError: a stretch of a whole sequence that does not divide by the number of devices.
        """
        if self.sharded or len(lengths) == 1:
            return self.exchange.attend(query, key, value, layer=layer)
        size = self.exchange.size
        query, key, value = (by_device(each, lengths, size) for each in (query, key, value))
        return by_stretch(self.exchange.attend(query, key, value, layer=layer), lengths, size)
