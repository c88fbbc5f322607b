"""KDD Cup 2012, track 2: search advertising, twelve columns separated by tabs, without a header."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from acclimate.fields.recommendation.data.cells import Table
from acclimate.fields.recommendation.data.numbers import integers
from acclimate.fields.recommendation.data.reading import Format, Rows

__all__ = ["KDD12"]

_FIELDS = (
    "impression", "display_url", "ad_id", "advertiser_id", "depth", "position", "query_id", "keyword_id", "title_id",
    "description_id", "user_id",
)  # fmt: skip


def _parse(table: Table) -> Rows:
    clicks, missing = integers(table, "click")
    wrong = missing | (clicks < 0)
    if bool(wrong.any()):
        row = int(wrong.argmax())
        found = "nothing" if missing[row] else repr(str(clicks[row]))
        raise table.error(row, "click", found, "how often it was clicked, 0 or more", "Mend the label.")
    cells = tuple(table.column(name) for name in _FIELDS)
    return Rows(table.path, table.lines, KDD12.fields, cells, (clicks > 0).astype(np.float32))


KDD12 = Format(
    name="kdd12",
    columns=("click", *_FIELDS),
    separators="\t" * 11,
    fields=_FIELDS,
    parse=_parse,
    label="click",
    thresholds=MappingProxyType(dict.fromkeys(_FIELDS, 10)),
)
"""About 150 million rows of `training.txt`, 11 fields; the label is whether there was a click at all.

The documented columns are: clicks, impressions, hash of the display URL, ad, advertiser, depth (advertisements shown),
position, query, keyword, title, description, user. A row stands for all impressions of one ad to one user under one
query, depth and position, so clicks may exceed 1. Papers report 11 fields: all columns but the clicks, as they are. The
number of impressions is among them, since otherwise ten would remain; it is known only afterwards, so for a model that
is to be deployed leave it out. All columns are ids or small counts and are taken as categories.

Source: KDD Cup 2012 track 2, Tencent soso.com.
"""
