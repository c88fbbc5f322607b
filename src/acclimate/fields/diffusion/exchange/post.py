"""Messages between ranks, each with an envelope that is checked before its content is used."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from acclimate.fields.diffusion.exchange.envelope import ENVELOPE, Envelope, check, excuse
from acclimate.wire.peers import Arriving, Leaving, Mail

__all__ = ["Incoming", "Post"]


class Incoming:
    """A message under way to this rank."""

    def __init__(self, arriving: Arriving, expected: Envelope, peer: int) -> None:
        self._arriving, self._expected, self._peer = arriving, expected, peer
        self.label = b""

    def content(self) -> Tensor:
        """The message `uint8 [length]` on the CPU, when it is here and its envelope is the expected one.

        Raises:
            LinkFault: the peer is gone, could not go on, or is elsewhere; see `Envelope.read` and `check`.
        """
        self.label = self._arriving.label()
        check(Envelope.read(self.label, self._peer), self._expected, self._peer)
        return self._arriving.body()


class Post:
    """Sends and receives the messages of one layer after the other.

    All receives of a layer are asked for before its first send, so that a send never waits for a rank that failed.

    Arguments:
        mail: to single ranks.
        audience: ranks that wait for messages of this one; they are told when it cannot go on.
    """

    def __init__(self, mail: Mail, audience: tuple[int, ...]) -> None:
        self._mail, self._audience = mail, audience
        self._letter: Envelope | None = None
        self._failed = False

    @property
    def rank(self) -> int:
        return self._mail.rank

    @property
    def size(self) -> int:
        return self._mail.size

    @property
    def peers(self) -> list[int]:
        """The other ranks, in order."""
        return [rank for rank in range(self.size) if rank != self.rank]

    def begin(self, letter: Envelope) -> None:
        """Let messages from here on be of another layer: what all envelopes have in common."""
        self._letter = letter

    def _envelope(self, source: int, length: int, part: int, checksum: int) -> Envelope:
        assert self._letter is not None
        return replace(self._letter, source=source, length=length, part=part, checksum=checksum)

    def expect(self, peer: int, source: int, length: int, *, part: int = 0, checksum: int = 0) -> Incoming:
        """Ask for the next message that a peer sends here: of which source, and how long."""
        expected = self._envelope(source, length, part, checksum)
        return Incoming(self._mail.receive(peer, ENVELOPE, length), expected, peer)

    def send(self, peer: int, message: Tensor, *, part: int = 0, checksum: int = 0) -> Leaving:
        """Send a message of this rank, `uint8 [...]`, to one other."""
        label = self._envelope(self.rank, len(message), part, checksum).bytes()
        return self._mail.send(peer, label, message.cpu())

    def forward(self, peer: int, passing: Incoming) -> Leaving:
        """Pass on a message that has come, unchanged."""
        return self._mail.send(peer, passing.label, passing.content())

    def fail(self, error: BaseException) -> None:
        """Tell all who wait for this rank that it cannot go on."""
        if not self._failed:
            self._failed = True
            self._mail.excuse(self._audience, excuse(self.rank, error))

    def recover(self) -> bool:
        """Begin anew after a fault; whether there was one."""
        if not self._failed:
            return False
        self._mail.renew()
        self._failed = False
        return True
