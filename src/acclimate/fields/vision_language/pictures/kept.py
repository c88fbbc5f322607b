"""The caches of an adapted model, by name."""

from __future__ import annotations

from acclimate.adapted import Adapted
from acclimate.fields.vision_language.caches import Cache

__all__ = ["kept", "written"]

_BEFORE, _AFTER = "method.", ".entropies"


def written(name: str) -> str:
    """A class's name as it is drawn; a dollar would begin a formula."""
    return name.replace("_", " ").replace("$", r"\$")


def kept(adapted: Adapted, name: str) -> Cache | None:
    """The cache of this name; None before the first image has told how wide its entries are.

    ValueError for a method that keeps none of this name.
    """
    state = adapted.state
    if f"{name}{_AFTER}" not in state:
        slots = state.table.slots
        known = [key.removeprefix(_BEFORE).removesuffix(_AFTER) for key in slots if key.endswith(_AFTER)]
        raise ValueError(
            f"{adapted.method.name} keeps no cache {name!r}, expected one of: {', '.join(known) or 'none at all'}. "
            "Name it, or adapt by a method that keeps features of the stream, such as cosmic."
        )
    return Cache.of(state, name) if f"{name}.features" in state else None
