"""The mean of what all ranks sent, in an order that makes it the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from acclimate.fields.wide_area.wire.packet import Packet, unpack
from acclimate.wire.faults import Disagreement, GarbledPacket

__all__ = ["add_mean", "opened"]


def opened(raw: Sequence[Tensor], number: int, count: int) -> list[Packet]:
    """The packets of all ranks for one iteration, checked.

    Arguments:
        raw: uint8, one of each rank, in their order.
        number: of the iteration they must be of.
        count: d.

    Raises:
        GarbledPacket: one is damaged or of another iteration; the message names the rank.
        Disagreement: they hold different numbers of entries, or digests of different weights or settings.
    """
    packets: list[Packet] = []
    for rank, each in enumerate(raw):
        try:
            packets.append(unpack(each, count))
        except GarbledPacket as error:
            raise GarbledPacket(f"the packet of rank {rank} for iteration {number} {error}") from error
        if packets[-1].number != number & 0xFFFFFFFF:
            raise GarbledPacket(
                f"rank {rank} sent iteration {packets[-1].number} where {number} was expected: it skipped or repeated "
                "one. Start all ranks again from one checkpoint."
            )
    kept = [each.values.numel() for each in packets]
    if len(set(kept)) > 1:
        raise Disagreement(f"in iteration {number} ranks sent {kept} entries. Give all of them one policy and version.")
    digests = [each.digest for each in packets]
    if len(set(digests)) > 1:
        others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        raise Disagreement(
            f"the weights, step sizes or settings of ranks {others} differ from those of rank 0 at iteration {number}. "
            "Something other than the messages changed them; start again from a checkpoint before it."
        )
    return packets


def add_mean(packets: Sequence[Packet], out: Tensor) -> Tensor:
    """`out = (1 / n) sum_i scatter(values_i, indices_i)`, added in rank order in the type of `out` [S: 8.5].

    Arguments:
        packets: one of each rank, for the same iteration.
        out: zeros `[d]`, which are added to and returned.

    >>> import torch
    >>> sent = [Packet(0, torch.tensor([0, 2]), torch.tensor([1.0, 2.0])), Packet(0, None, torch.ones(3))]
    >>> add_mean(sent, torch.zeros(3)).tolist()
    [1.0, 0.5, 1.5]
    """
    for packet in packets:
        values = packet.values.to(out.device, out.dtype)
        if packet.indices is None:
            out.add_(values)
        else:
            out.index_add_(0, packet.indices.to(out.device), values)  # no index twice: no order to depend on
    return out.div_(len(packets))
