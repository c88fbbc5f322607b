"""What the server does not do, as it tells it to whoever asked."""

from __future__ import annotations

from acclimate.serve.settings import Limits

__all__ = ["Refused", "away", "full", "too_late", "unlogged"]


class Refused(Exception):
    """A request that is answered with an error of HTTP: what was found, what was expected, what to do.

    Arguments: `status`, the HTTP status; `retry_after`, whole seconds after which trying again makes sense.
    """

    def __init__(self, status: int, *, found: str, expected: str, do: str, retry_after: int | None = None) -> None:
        Exception.__init__(self, f"{found} Expected {expected}. {do}")
        self.status = status
        self.found = found
        self.expected = expected
        self.do = do
        self.retry_after = retry_after

    def body(self) -> dict[str, dict[str, str]]:
        """As JSON values."""
        return {"detail": {"found": self.found, "expected": self.expected, "do": self.do}}


def away(reason: str, expected: str = "a server that is ready", do: str = "Try again later.") -> Refused:
    """What a request is told while nobody is there to answer it."""
    return Refused(503, found=f"{reason}.", expected=expected, do=do, retry_after=2)


def full(limits: Limits) -> Refused:
    """What a request is told for which there is no room."""
    return Refused(
        503,
        found=f"{limits.queue} requests that wait.",
        expected="room in the server's queue",
        do="Try again later.",
        retry_after=1,
    )


def unlogged(error: OSError) -> Refused:
    """What a request is told of which the audit log cannot tell, so that it has left no trace."""
    return Refused(
        503,
        found=f"the audit log cannot be written: {error}.",
        expected="room in the state folder",
        do="Tell who runs the server; nothing has come of this request.",
        retry_after=10,
    )


def too_late(limits: Limits) -> Refused:
    """What a request is told that has waited for too long. It has left no trace."""
    return Refused(
        504,
        found=f"no answer within {limits.deadline:g} seconds.",
        expected="a shorter queue",
        do="Try again; nothing was learned from this request.",
        retry_after=1,
    )
