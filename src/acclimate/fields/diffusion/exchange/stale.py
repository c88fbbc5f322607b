"""Every device attends to the others' keys and values of the step before, which travel meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from acclimate.fields.diffusion.exchange.attention import attention
from acclimate.fields.diffusion.exchange.blocks import Block
from acclimate.fields.diffusion.exchange.envelope import ENVELOPE
from acclimate.fields.diffusion.exchange.post import Incoming, Post
from acclimate.fields.diffusion.exchange.raw import as_raw, from_raw
from acclimate.fields.diffusion.exchange.shards import QKV
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.residual.context import ResidualContext
from acclimate.wire.peers import Leaving

__all__ = ["Stale"]

_Place = tuple[int, int]


class _Round(NamedTuple):
    """The messages of one layer in one evaluation, by peer, and those to the peers."""

    incoming: dict[int, Incoming]
    leaving: list[Leaving]


class Stale(Strategy):
    """Displaced patch parallelism, to compare with: nothing is compressed, and waiting is hidden instead [S: 5.5].

    The first `warmup` evaluations exchange whole keys and values and wait for them; later ones use the others' of the
    evaluation before, and their own fresh ones. Of the settings only `warmup` has a meaning here, 1 or more.

    Source: Li et al., DistriFusion, CVPR 2024. Fails where a step's keys differ much from those before.
    """

    name: ClassVar[str] = "stale"

    def __init__(self) -> None:
        self._before: dict[_Place, list[Block]] = {}
        self._under_way: dict[_Place, _Round] = {}

    def reset(self) -> None:
        self._before.clear()
        self._under_way.clear()

    def simulate(
        self, context: ResidualContext, shards: Sequence[QKV], layer: int, scale: float | None
    ) -> list[Tensor]:
        _check(context)
        fresh, place, size = [Block(own.key, own.value) for own in shards], (context.branch, layer), len(shards)
        for block in fresh:
            _count(context, block, (size - 1) / size)
        old = fresh if context.step < context.settings.warmup else self._before[place]
        self._before[place] = [
            Block(*(from_raw(raw, each) for raw, each in zip(_raw(block, layer, rank), block, strict=True)))
            for rank, block in enumerate(fresh)
        ]
        return [
            _attend(own.query, [fresh[rank] if rank == source else old[source] for source in range(size)], scale)
            for rank, own in enumerate(shards)
        ]

    def attend(self, context: ResidualContext, post: Post, own: QKV, layer: int, scale: float | None) -> Tensor:
        _check(context)
        fresh, place = Block(own.key, own.value), (context.branch, layer)
        message = torch.cat(_raw(fresh, layer, post.rank))
        _count(context, fresh, post.size - 1)
        incoming = {peer: post.expect(peer, peer, len(message)) for peer in post.peers}
        sent = _Round(incoming, [post.send(peer, message) for peer in post.peers])
        used = sent if context.step < context.settings.warmup else self._under_way[place]
        for each in used.incoming.values():
            each.check()
        blocks = [
            fresh if rank == post.rank else _block(used.incoming[rank].content(), fresh) for rank in range(post.size)
        ]
        for each in used.leaving:
            each.wait()
        self._under_way[place] = sent
        return _attend(own.query, blocks, scale)


def _check(context: ResidualContext) -> None:
    if context.settings.warmup < 1:
        raise ValueError("found warmup=0 for strategy 'stale', which has nothing to begin with. Choose 1 or more.")


def _count(context: ResidualContext, block: Block, copies: float) -> None:
    whole = copies * sum(each.numel() * each.element_size() for each in block)
    context.books.count(whole, whole, copies * ENVELOPE)


def _raw(block: Block, layer: int, rank: int) -> list[Tensor]:
    return [as_raw(each, f"layer {layer}, {kind} of rank {rank}") for kind, each in zip("kv", block, strict=True)]


def _block(message: Tensor, like: Block) -> Block:
    length = like.key.numel() * like.key.element_size()
    return Block(from_raw(message[:length], like.key), from_raw(message[length:], like.value))


def _attend(query: Tensor, blocks: Sequence[Block], scale: float | None) -> Tensor:
    key, value = (torch.cat(each, 1) for each in zip(*blocks, strict=True))
    return attention(query, key, value, scale)
