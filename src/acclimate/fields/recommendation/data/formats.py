"""The known layouts, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from acclimate.fields.recommendation.data.adult import ADULT
from acclimate.fields.recommendation.data.avazu import AVAZU
from acclimate.fields.recommendation.data.criteo import CRITEO
from acclimate.fields.recommendation.data.kdd12 import KDD12
from acclimate.fields.recommendation.data.libfm import FRAPPE
from acclimate.fields.recommendation.data.reading import Format
from acclimate.streams.segments import suggest

__all__ = ["FORMATS", "layout_of"]

FORMATS: Mapping[str, Format] = MappingProxyType({each.name: each for each in (CRITEO, AVAZU, KDD12, ADULT, FRAPPE)})


def layout_of(layout: Format | str) -> Format:
    """The layout itself, or the known one of that name; ValueError for another name."""
    if isinstance(layout, Format):
        return layout
    if layout not in FORMATS:
        raise ValueError(f"There is no layout {layout!r}. {suggest(layout, tuple(FORMATS))}")
    return FORMATS[layout]
