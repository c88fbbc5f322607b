"""What ranks tell each other between two images, and whether they may begin the next together."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from acclimate.fields.diffusion.exchange.envelope import ENVELOPE, MAGIC, Kind, PeerFault
from acclimate.wire.faults import Disagreement

__all__ = ["Farewell", "compare"]

_LAYOUT = struct.Struct("<IBBHHIIIq")
_TEXT = ENVELOPE - _LAYOUT.size


@dataclass(frozen=True, slots=True)
class Farewell:
    """The last envelope of an image; no message goes with it.

    Attributes:
        source: rank that it is from.
        size: ranks.
        settings: fingerprint of strategy and settings.
        image: resets before this one.
        evaluations: of the image that ends here, of all branches.
        failed: why the image failed on this rank; "" if it did not.
        following: the caller's number of the image that begins, -1 if there is none.
    """

    source: int
    size: int
    settings: int
    image: int
    evaluations: int
    failed: str
    following: int

    def bytes(self) -> bytes:
        """`ENVELOPE` bytes, little endian."""
        reason = self.failed.encode()[:_TEXT]
        counts = (self.settings, self.image, self.evaluations, self.following)
        head = _LAYOUT.pack(MAGIC, Kind.FAREWELL, bool(reason), self.source, self.size, *counts)
        return (head + reason).ljust(ENVELOPE, b"\0")

    @classmethod
    def read(cls, raw: bytes) -> Farewell | None:
        """The farewell in an envelope, None if it is of another kind."""
        magic, kind, _, source, size, settings, image, evaluations, following = _LAYOUT.unpack(raw[: _LAYOUT.size])
        if magic != MAGIC or kind != Kind.FAREWELL:
            return None
        reason = raw[_LAYOUT.size :].rstrip(b"\0").decode(errors="replace")
        return cls(source, size, settings, image, evaluations, reason, following)


def compare(said: Sequence[Farewell]) -> None:
    """Return if all ranks may begin the next image together.

    It is decided from the farewells of all ranks alone, so either all return or all raise.

    Raises:
        Disagreement: ranks with other settings, another count of images or of evaluations, or about to begin another
            image.
        PeerFault: an image that failed on some ranks and was complete on others: those may go on where these begin
            again, so none goes on before all know.
    """
    own = said[0]
    for name in ("size", "settings", "image", "following"):
        _same(name, {each.source: getattr(each, name) for each in said})
    failed = {each.source: each.failed for each in said if each.failed}
    if failed and len(failed) < own.size:
        rank, reason = next(iter(failed.items()))
        raise PeerFault(
            f"rank {rank} could not go on ({reason}), after other ranks had done all of the image that ends here. "
            "Nothing of the next was exchanged; reset all ranks again, and let all begin the same image."
        )
    if not failed:
        _same("evaluations", {each.source: each.evaluations for each in said})


def _same(name: str, values: dict[int, int]) -> None:
    if len(set(values.values())) > 1:
        found = ", ".join(f"{value} on rank {rank}" for rank, value in values.items())
        raise Disagreement(
            f"at reset, ranks differ in {name}: {found}. Give every rank the same settings, images and number of "
            "evaluations; then reset all of them."
        )
