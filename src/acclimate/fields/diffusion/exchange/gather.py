"""Every device sends one packet with its keys and values to every other: all-gather, also called patch parallel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.fields.diffusion.exchange.attention import attention
from acclimate.fields.diffusion.exchange.blocks import Block, count_pair, held, opened, sealed, simulated_blocks
from acclimate.fields.diffusion.exchange.post import Post
from acclimate.fields.diffusion.exchange.shards import QKV
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.residual.context import ResidualContext

__all__ = ["Gather"]


class Gather(Strategy):
    """All-gather of compressed keys and values, then one attention [S: 5.1].

    For a diffusion transformer this is patch parallelism: of attention nothing but keys and values leaves a device. The
    output of the model, which is brought together once in each forward, comes on top.
    """

    name: ClassVar[str] = "gather"

    def simulate(
        self, context: ResidualContext, shards: Sequence[QKV], layer: int, scale: float | None
    ) -> list[Tensor]:
        every = simulated_blocks(context, shards, layer)
        return [_attend(own.query, blocks, scale) for own, blocks in zip(shards, every, strict=True)]

    def attend(self, context: ResidualContext, post: Post, own: QKV, layer: int, scale: float | None) -> Tensor:
        checksum = held(context, layer, post.rank, owned=True)
        message, mine = sealed(context, own, layer, post.rank)
        like = Block(own.key, own.value)
        count_pair(context, len(message), like, post.size - 1)
        incoming = {
            peer: post.expect(peer, peer, len(message), checksum=held(context, layer, peer, owned=False))
            for peer in post.peers
        }
        leaving = [post.send(peer, message, checksum=checksum) for peer in post.peers]
        for each in incoming.values():
            each.check()
        blocks = [
            mine if rank == post.rank else opened(context, incoming[rank].content(), like, layer, rank)
            for rank in range(post.size)
        ]
        for each in leaving:
            each.wait()
        return _attend(own.query, blocks, scale)


def _attend(query: Tensor, blocks: Sequence[Block], scale: float | None) -> Tensor:
    key, value = (torch.cat(each, 1) for each in zip(*blocks, strict=True))
    return attention(query, key, value, scale)
