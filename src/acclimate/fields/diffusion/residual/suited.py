"""Which settings a strategy makes something of; the others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from acclimate.core.config import in_brief
from acclimate.fields.diffusion.residual.settings import ResidualSettings

__all__ = ["suited"]

_EXACT = {
    "stale": frozenset({"warmup"}),
    "ulysses": frozenset({"warmup"}),
}
"""What strategies that send everything whole make something of; in "ulysses" a warm-up is like any evaluation."""

_ALWAYS = {"ulysses": frozenset({"own_block", "checksum_every"})}
"""What a strategy makes nothing of, even where it compresses."""

_ADVICE = {
    "stale": "It sends everything whole, a step late",
    "ulysses": (
        "It compares no bases, attends to its own slices as they are, and sends everything whole unless told which "
        "slices to compress, as by Ulysses('kv')"
    ),
}


def suited(settings: ResidualSettings, strategy: Mapping[str, Any]) -> ResidualSettings:
    """Settings with the strategy's own codec where none was chosen: two bits, or whole where it compresses nothing.

    Arguments:
        settings: as a user gave them.
        strategy: what `Strategy.config` says: its name in "strategy", and in "compressed" which slices "ulysses"
            compresses.

    Raises:
        ValueError: a setting other than the default of which the strategy makes nothing.

    >>> suited(ResidualSettings(), {"strategy": "stale"}).codec
    Whole()
    """
    name = strategy["strategy"]
    idle = _idle(name, exact=not strategy.get("compressed"))
    whole = "codec" in idle
    usual = ResidualSettings(codec="whole" if whole else None)
    chosen = settings if settings.codec is not None or not whole else replace(settings, codec="whole")
    found = [each for each in sorted(idle) if getattr(chosen, each) != getattr(usual, each)]
    if found:
        given = ", ".join(f"{each}={in_brief(getattr(settings, each))}" for each in found)
        raise ValueError(
            f"found {given} with strategy {name!r}, which makes nothing of {'it' if len(found) == 1 else 'them'}. "
            f"{_ADVICE[name]}: leave out what is named here, or choose the strategy 'gather' or 'ring'."
        )
    return chosen if chosen.codec is not None else replace(chosen, codec="two_bit")


def _idle(name: str, *, exact: bool) -> frozenset[str]:
    """Settings without an effect."""
    if name in _EXACT and exact:
        return frozenset(each.name for each in fields(ResidualSettings)) - _EXACT[name]
    return _ALWAYS.get(name, frozenset())
