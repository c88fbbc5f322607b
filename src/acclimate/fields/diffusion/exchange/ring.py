"""Packets of keys and values travel round a ring, and each block is attended to as it passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from acclimate.fields.diffusion.exchange.attention import merge, partial_attention
from acclimate.fields.diffusion.exchange.blocks import Block, count_pair, held, opened, sealed, simulated_blocks
from acclimate.fields.diffusion.exchange.post import Post
from acclimate.fields.diffusion.exchange.shards import QKV
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.residual.context import ResidualContext

__all__ = ["Ring"]

_Sum = tuple[Tensor, Tensor]


class Ring(Strategy):
    """Ring attention over compressed keys and values [S: 5.2].

    A packet is passed on unchanged, so that all devices apply the same change for its owner. While one block travels,
    the one before is attended to; the pieces are merged by their log-sum-exp, in float32.
    """

    name: ClassVar[str] = "ring"

    def audience(self, rank: int, size: int) -> tuple[int, ...]:
        return ((rank + 1) % size,)

    def simulate(
        self, context: ResidualContext, shards: Sequence[QKV], layer: int, scale: float | None
    ) -> list[Tensor]:
        every, size, out = simulated_blocks(context, shards, layer), len(shards), list[Tensor]()
        for rank, own in enumerate(shards):
            total: _Sum | None = None
            for hop in range(size):
                total = _added(total, own.query, every[rank][(rank - hop) % size], scale)
            assert total is not None
            out.append(total[0].to(own.query.dtype))
        return out

    def attend(self, context: ResidualContext, post: Post, own: QKV, layer: int, scale: float | None) -> Tensor:
        checksum = held(context, layer, post.rank, owned=True)
        message, mine = sealed(context, own, layer, post.rank)
        like, size = Block(own.key, own.value), post.size
        count_pair(context, len(message), like, size - 1)
        after, before = (post.rank + 1) % size, (post.rank - 1) % size
        sources = [(post.rank - hop) % size for hop in range(1, size)]
        incoming = [
            post.expect(before, source, len(message), checksum=held(context, layer, source, owned=False))
            for source in sources
        ]
        leaving = [post.send(after, message, checksum=checksum)]
        total = _added(None, own.query, mine, scale)
        for source, each in zip(sources, incoming, strict=True):
            passing = each.content()
            if source != after:
                leaving.append(post.forward(after, each))
            total = _added(total, own.query, opened(context, passing, like, layer, source), scale)
        for each in leaving:
            each.wait()
        return total[0].to(own.query.dtype)


def _added(total: _Sum | None, query: Tensor, block: Block, scale: float | None) -> _Sum:
    piece = partial_attention(query, block.key, block.value, scale)
    return piece if total is None else merge(*total, *piece)
