"""Messages between ranks, each with an envelope that is checked before its content is used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from torch import Tensor

from acclimate.fields.diffusion.exchange.envelope import Envelope, excuse
from acclimate.fields.diffusion.exchange.farewell import Farewell, compare
from acclimate.fields.diffusion.exchange.stream import Incoming, Stream
from acclimate.wire.mail import Leaving, Mail

__all__ = ["Incoming", "Post"]


class Post:
    """Sends and receives the messages of one layer after the other.

    All receives of a layer are asked for before its first send, so that a send never waits for a rank that failed.
    From the second step on lengths are known to be equal, and contents are asked for together with their envelopes.

    `meet` keeps images apart. Each rank sends its farewell to every other, and reads what each other sends up to that
    one's farewell. Messages of two ranks keep their order, so afterwards nothing of the image that ended is under way
    between any two, and the n-th image of a rank is exchanged with the n-th of the others or not at all: a rank that
    meets a farewell where it waits for a message raises. What all said decides whether all go on or all raise.

    Arguments:
        mail: to single ranks.
        audience: ranks that wait for messages of this one; they are told when it cannot go on.
    """

    def __init__(self, mail: Mail, audience: tuple[int, ...]) -> None:
        self._mail, self._audience = mail, audience
        self._streams = {peer: Stream(mail, peer) for peer in self.peers}
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
        return self._streams[peer].expect(expected, early=expected.step > 0)

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

    def meet(self, own: Farewell) -> None:
        """End the image on all ranks; each waits here for all others.

        Raises:
            LostPeer: a rank is gone, or does not come within the timeout.
            LinkFault: the next image cannot begin; see `compare`. It raises on all ranks, which have met then.
        """
        self._mail.excuse(self.peers, own.bytes())
        with ThreadPoolExecutor(max(1, len(self.peers))) as pool:  # ranks may wait for each other, in any order
            said = [own, *pool.map(Stream.end, self._streams.values())]
        self._mail.renew()
        self._failed = False
        compare(sorted(said, key=lambda each: each.source))
