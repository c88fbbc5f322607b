"""What one peer sends, label by label, up to the end of its image."""

from __future__ import annotations

from torch import Tensor

from acclimate.fields.diffusion.exchange.envelope import ENVELOPE, Envelope, body_length, check
from acclimate.fields.diffusion.exchange.farewell import Farewell
from acclimate.wire.faults import Disagreement
from acclimate.wire.mail import Arriving, Mail

__all__ = ["Incoming", "Stream"]


class Stream:
    """Labels of a peer come in the order in which it sent them; the last of an image is a farewell."""

    def __init__(self, mail: Mail, peer: int) -> None:
        self.peer, self._mail = peer, mail
        self._pending: list[Arriving] = []
        self._farewell: Farewell | None = None

    def expect(self, expected: Envelope, *, early: bool) -> Incoming:
        """Ask for the next message, and with `early` at once for its content."""
        arriving = self._mail.receive(self.peer, ENVELOPE, expected.length if early else None)
        self._pending.append(arriving)
        return Incoming(self, arriving, expected)

    def taken(self, arriving: Arriving) -> None:
        """Note that nothing of a message is left to come."""
        if arriving in self._pending:
            self._pending.remove(arriving)

    def over(self, label: bytes) -> Farewell | None:
        """The farewell in a label, remembered."""
        self._farewell = Farewell.read(label) or self._farewell
        return self._farewell

    def end(self) -> Farewell:
        """The peer's farewell; all that it sent before is taken in and forgotten."""
        while self._farewell is None:
            arriving = self._pending.pop(0) if self._pending else self._mail.receive(self.peer, ENVELOPE)
            label = arriving.label()
            length = body_length(label)
            if self.over(label) is None and length is not None:
                arriving.ask(length)
                arriving.body()
        found, self._farewell = self._farewell, None
        self._pending.clear()
        return found


class Incoming:
    """A message under way to this rank."""

    def __init__(self, stream: Stream, arriving: Arriving, expected: Envelope) -> None:
        self._stream, self._arriving, self._expected = stream, arriving, expected
        self.label = b""

    def check(self) -> None:
        """Return when its envelope is here and the expected one; its content is asked for then.

        Raises:
            LinkFault: the peer is gone, could not go on, or is elsewhere; see `Envelope.read` and `check`.
        """
        if self.label:
            return
        label, peer, expected = self._arriving.label(), self._stream.peer, self._expected
        farewell = self._stream.over(label)
        if farewell is not None:
            raise Disagreement(
                f"rank {peer} has ended its image {farewell.image} after {farewell.evaluations} evaluations "
                f"({farewell.failed or 'without a fault'}); here evaluation {expected.evaluation} of image "
                f"{expected.image} is under way. Give every rank the same number of evaluations; then reset all."
            )
        check(Envelope.read(label, peer), expected, peer)
        self._arriving.ask(expected.length)
        self.label = label

    def content(self) -> Tensor:
        """The message `uint8 [length]` on the CPU; errors as for `check`."""
        self.check()
        body = self._arriving.body()
        self._stream.taken(self._arriving)
        return body
