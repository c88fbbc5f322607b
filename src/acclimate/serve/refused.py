"""What the server does not do, as it tells it to whoever asked."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """A request that is answered with an error of HTTP: what was found, what was expected, what to do.

    Arguments: `status`, the HTTP status; `retry_after`, whole seconds after which trying again makes sense.
    """

    def __init__(self, status: int, *, found: str, expected: str, do: str, retry_after: int | None = None) -> None:
        super().__init__(f"{found} Expected {expected}. {do}")
        self.status = status
        self.found = found
        self.expected = expected
        self.do = do
        self.retry_after = retry_after

    def body(self) -> dict[str, dict[str, str]]:
        """As JSON values."""
        return {"detail": {"found": self.found, "expected": self.expected, "do": self.do}}
