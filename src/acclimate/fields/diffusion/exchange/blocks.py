"""Keys and values of each device as the others know them: what compressed strategies have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from acclimate.fields.diffusion.exchange.envelope import ENVELOPE
from acclimate.fields.diffusion.exchange.shards import QKV
from acclimate.fields.diffusion.residual.books import Key
from acclimate.fields.diffusion.residual.context import ResidualContext
from acclimate.fields.diffusion.residual.packet import HEADER

__all__ = ["Block", "count_pair", "held", "opened", "sealed", "simulated_blocks"]


class Block(NamedTuple):
    """Keys and values of one device, each `[B, n, H, D]`."""

    key: Tensor
    value: Tensor


def sealed(context: ResidualContext, own: QKV, layer: int, rank: int, *, seen: bool = False) -> tuple[Tensor, Block]:
    """One message with the packets of keys and values, and the block that the owner attends to itself.

    With `seen`, or where the settings want the own block as the others know it, the block is that.
    """
    pair = [(Key(layer, rank, kind, context.branch), each) for kind, each in (("k", own.key), ("v", own.value))]
    packets = [context.encode(key, each) for key, each in pair]
    if seen or context.settings.own_block == "reconstructed":
        known = (context.mirrored(key, packet, each) for (key, each), packet in zip(pair, packets, strict=True))
        return torch.cat(packets), Block(*known)
    return torch.cat(packets), Block(own.key, own.value)


def opened(context: ResidualContext, message: Tensor, like: Block, layer: int, source: int) -> Block:
    """Another device's block, from its message; errors as for `ResidualChannel.decode`."""
    keys = [Key(layer, source, kind, context.branch) for kind in "kv"]
    first = context.packet_size(keys[0], like.key, owned=False)
    return Block(
        context.decode(keys[0], message[:first], like.key), context.decode(keys[1], message[first:], like.value)
    )


def held(context: ResidualContext, layer: int, source: int, *, owned: bool) -> int:
    """64 bits of what one end holds of a device's keys and values; 0 in steps that compare nothing."""
    every = context.settings.checksum_every
    if not every or not context.step or context.step % every:
        return 0
    keys, values = (context.checksum(Key(layer, source, kind, context.branch), owned=owned) for kind in "kv")
    return keys ^ (values >> 1)


def count_pair(context: ResidualContext, message: int, own: Block, copies: float) -> None:
    """Note so many copies of a message of keys and values."""
    whole = sum(each.numel() * each.element_size() for each in own)
    context.books.count(copies * (message - 2 * HEADER), copies * whole, copies * (2 * HEADER + ENVELOPE))


def simulated_blocks(context: ResidualContext, shards: Sequence[QKV], layer: int) -> list[list[Block]]:
    """For each device the blocks of all devices, in the order of ranks, as it knows them."""
    size = len(shards)
    known: list[Block] = []
    for rank, own in enumerate(shards):
        message, block = sealed(context, own, layer, rank, seen=True)
        count_pair(context, len(message), Block(own.key, own.value), (size - 1) / size)
        known.append(block)
    exact = [Block(own.key, own.value) for own in shards]
    mine = known if context.settings.own_block == "reconstructed" else exact
    return [[mine[rank] if rank == source else known[source] for source in range(size)] for rank in range(size)]
