"""Numbers given once for all fields, or for each by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

__all__ = ["PerField", "check_names", "of_field"]

PerField: TypeAlias = int | Mapping[str, int] | None
"""One number for all fields, one for each field that is named, or none."""


def of_field(given: PerField, name: str) -> int | None:
    """The number of a field, if there is one.

    >>> of_field(3, "user"), of_field({"user": 2}, "user"), of_field({"user": 2}, "item")
    (3, 2, None)
    """
    return given.get(name) if isinstance(given, Mapping) else given


def check_names(fields: Sequence[str], **numbers: PerField) -> None:
    """ValueError where a field is named that does not exist."""
    for what, given in numbers.items():
        unknown = [name for name in given if name not in fields] if isinstance(given, Mapping) else []
        if unknown:
            raise ValueError(f"{what} names {', '.join(unknown)}; expected some of the fields {', '.join(fields)}.")
