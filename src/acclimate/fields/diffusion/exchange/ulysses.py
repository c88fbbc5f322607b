"""Tokens are exchanged for heads before attention, and back after it: all-to-all of queries, keys, values, outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.fields.diffusion.exchange.attention import attention
from acclimate.fields.diffusion.exchange.envelope import ENVELOPE
from acclimate.fields.diffusion.exchange.post import Post
from acclimate.fields.diffusion.exchange.raw import as_raw, from_raw
from acclimate.fields.diffusion.exchange.shards import QKV
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.residual.books import Key
from acclimate.fields.diffusion.residual.context import ResidualContext
from acclimate.fields.diffusion.residual.packet import HEADER

__all__ = ["Ulysses"]


class Ulysses(Strategy):
    """Sequence parallelism by heads: each device attends to all tokens with its share of the heads [S: 5.3].

    It sends `4 (W - 1) / W` shards where a gather sends `2 (W - 1)`. Exact by default: errors of queries and outputs
    are not averaged by the softmax as those of keys and values are.

    Arguments:
        compressed: which slices go through residual channels, letters of "qkvo"; the others are sent whole.

    Raises:
        ValueError: another letter; when attending, heads that do not divide by the devices.

    Source: Jacobs et al., DeepSpeed Ulysses, 2023.
    """

    name: ClassVar[str] = "ulysses"

    def __init__(self, compressed: str = "") -> None:
        if set(compressed) - set("qkvo"):
            raise ValueError(f"compressed must be letters of 'qkvo', found {compressed!r}.")
        self._compressed = frozenset(compressed)

    def config(self) -> dict[str, str]:
        return {"strategy": self.name, "compressed": "".join(sorted(self._compressed))}

    def simulate(
        self, context: ResidualContext, shards: Sequence[QKV], layer: int, scale: float | None
    ) -> list[Tensor]:
        size = len(shards)
        slices = [[_heads(each, size) for each in own] for own in shards]
        back: list[list[Tensor]] = []
        for target in range(size):
            taken = [
                self._passed(context, "qkv", [each[target] for each in slices[source]], layer, source, target, size)
                for source in range(size)
            ]
            query, key, value = (torch.cat(each, 1) for each in zip(*taken, strict=True))
            out = attention(query, key, value, scale)
            pieces = out.chunk(size, 1)
            back.append([self._passed(context, "o", [pieces[to]], layer, target, to, size)[0] for to in range(size)])
        return [torch.cat([back[source][rank] for source in range(size)], 2) for rank in range(size)]

    def _passed(
        self,
        context: ResidualContext,
        kinds: str,
        slices: list[Tensor],
        layer: int,
        source: int,
        target: int,
        size: int,
    ) -> list[Tensor]:
        """Slices as their target has them."""
        if source == target:
            return slices
        keys = [Key(layer, source, f"{kind}>{target}", context.branch) for kind in kinds]
        packets = self._packets(context, keys, slices)
        self._count(context, packets, slices, kinds, 1 / size)
        return [
            context.mirrored(key, packet, each) if key.kind[0] in self._compressed else each
            for key, packet, each in zip(keys, packets, slices, strict=True)
        ]

    def attend(self, context: ResidualContext, post: Post, own: QKV, layer: int, scale: float | None) -> Tensor:
        slices = [_heads(each, post.size) for each in own]
        mine = {rank: [each[rank] for each in slices] for rank in range(post.size)}
        taken = self._swap(context, post, "qkv", mine, layer, part=0)
        query, key, value = (torch.cat(each, 1) for each in zip(*taken, strict=True))
        out = attention(query, key, value, scale)
        pieces = {rank: [each] for rank, each in enumerate(out.chunk(post.size, 1))}
        back = self._swap(context, post, "o", pieces, layer, part=1)
        return torch.cat([each for (each,) in back], 2)

    def _swap(
        self, context: ResidualContext, post: Post, kinds: str, mine: dict[int, list[Tensor]], layer: int, part: int
    ) -> list[list[Tensor]]:
        """All-to-all: this rank's slices for each rank, against each rank's for this one, in order."""
        messages: dict[int, Tensor] = {}
        for peer in post.peers:
            keys = [Key(layer, post.rank, f"{kind}>{peer}", context.branch) for kind in kinds]
            packets = self._packets(context, keys, mine[peer])
            self._count(context, packets, mine[peer], kinds, 1)
            messages[peer] = torch.cat(packets)
        incoming = {peer: post.expect(peer, peer, len(message), part=part) for peer, message in messages.items()}
        leaving = [post.send(peer, message, part=part) for peer, message in messages.items()]
        for each in incoming.values():
            each.check()
        found = [
            mine[rank]
            if rank == post.rank
            else self._open(context, incoming[rank].content(), mine[rank], kinds, layer, rank, post.rank)
            for rank in range(post.size)
        ]
        for each in leaving:
            each.wait()
        return found

    def _packets(self, context: ResidualContext, keys: Sequence[Key], slices: Sequence[Tensor]) -> list[Tensor]:
        return [
            context.encode(key, each)
            if key.kind[0] in self._compressed
            else as_raw(each, f"layer {key.layer}, {key.kind} of rank {key.source}")
            for key, each in zip(keys, slices, strict=True)
        ]

    def _open(
        self,
        context: ResidualContext,
        message: Tensor,
        like: Sequence[Tensor],
        kinds: str,
        layer: int,
        source: int,
        target: int,
    ) -> list[Tensor]:
        found: list[Tensor] = []
        for kind, each in zip(kinds, like, strict=True):
            key = Key(layer, source, f"{kind}>{target}", context.branch)
            lossy = kind in self._compressed
            length = context.packet_size(key, each, owned=False) if lossy else each.numel() * each.element_size()
            raw, message = message[:length], message[length:]
            if lossy:
                found.append(context.decode(key, raw, each))
            else:
                found.append(from_raw(raw, each))
        return found

    def _count(
        self, context: ResidualContext, packets: list[Tensor], slices: list[Tensor], kinds: str, copies: float
    ) -> None:
        headers = HEADER * sum(kind in self._compressed for kind in kinds)
        whole = sum(each.numel() * each.element_size() for each in slices)
        sent = sum(len(each) for each in packets) - headers
        context.books.count(copies * sent, copies * whole, copies * (headers + ENVELOPE))


def _heads(tensor: Tensor, size: int) -> Sequence[Tensor]:
    if tensor.shape[2] % size:
        raise ValueError(
            f"found {tensor.shape[2]} heads for {size} devices, expected heads that divide by them. Choose another "
            "number of devices, or the strategy 'gather' or 'ring'."
        )
    return tensor.chunk(size, 2)
