"""The constants of CocktailSGD, and a static setting that sends about as much."""

from __future__ import annotations

from acclimate.fields.wide_area.policy.contraction import FLOAT_BITS
from acclimate.fields.wide_area.policy.fixed import Static

__all__ = ["BUCKET", "KEPT", "RATIO", "SUBSET", "VALUE_BITS", "cocktail"]

SUBSET = 0.1
"""Share of entries in the seeded random subset of an iteration, which needs no indices. [S]"""

KEPT = 0.2
"""Share of the subset that Top-k keeps, told by a bit for each of its entries. [S]"""

VALUE_BITS = 4
"""Bits of a kept value. [S]"""

BUCKET = 128
"""Values that share a scale. [S]"""

RATIO = SUBSET * (1 + KEPT * VALUE_BITS) / FLOAT_BITS
"""Bits sent over those of the dense gradient, the scales apart: 0.56 %. [D]"""


def cocktail() -> Static:
    """CocktailSGD's traffic as one setting: staleness 1, [K] `RATIO` bits. [D]

    It stands for what that method sends and when. Of its entries `SUBSET * KEPT` are kept, more than Top-k with indices
    keeps for the same bits, so compare noise at that contraction. The server's second compression is left out.

    >>> cocktail().staleness, round(cocktail().ratio, 6)
    (1, 0.005625)
    """
    return Static(staleness=1, ratio=RATIO)
