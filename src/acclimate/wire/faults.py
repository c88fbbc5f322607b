"""What can go wrong between ranks, as errors that end a run rather than let replicas drift apart."""

from __future__ import annotations

__all__ = ["Disagreement", "GarbledPacket", "LinkFault", "LostPeer"]


class LinkFault(RuntimeError):
    """Something between the ranks failed. Nothing of the message was applied; start again from a checkpoint.

    >>> issubclass(LostPeer, LinkFault) and issubclass(GarbledPacket, LinkFault) and issubclass(Disagreement, LinkFault)
    True
    """


class LostPeer(LinkFault):
    """A rank died, hangs, or its link stayed down for longer than the timeout."""


class GarbledPacket(LinkFault):
    """Bytes that are not the packet they should be: damaged, cut, or of another message."""


class Disagreement(LinkFault):
    """Ranks differ in what must be the same on all: their configuration, their step, or their weights."""
