"""Avazu click-through rates: comma separated, one row per impression, with the hour in which it was."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.recommendation.data.cells import Table
from acclimate.fields.recommendation.data.numbers import as_text, integers, labels
from acclimate.fields.recommendation.data.reading import Format, Rows

__all__ = ["AVAZU", "date_parts"]

_KEPT = (
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category", "device_id",
    "device_ip", "device_model", "device_type", "device_conn_type", "C14", "C15", "C16", "C17", "C18", "C19", "C20",
    "C21",
)  # fmt: skip
_THURSDAY = 4
"""The weekday of 1 January 1970, counted from Sunday."""


def date_parts(stamps: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Hour of day, weekday (0 is Sunday) and whether the stamp is a real hour, of numbers `YYMMDDHH`: `[N]` each.

    >>> [part.tolist() for part in date_parts(np.array([14102100, 14102523]))]
    [[0, 23], [2, 6], [True, True]]
    """
    year, month = stamps // 10**6 + 2000, stamps // 10**4 % 100
    day, hour = stamps // 100 % 100, stamps % 100
    months = (np.clip(year, 1970, 2099) - 1970) * 12 + np.clip(month, 1, 12) - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    length = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) - first
    real = (stamps >= 0) & (year < 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= length) & (hour < 24)
    return hour, (first + day - 1 + _THURSDAY) % 7, real


def _parse(table: Table) -> Rows:
    found = labels(table, "click", {"0": 0, "1": 1})
    stamps, missing = integers(table, "hour")
    hour, weekday, real = date_parts(stamps)
    if bool((missing | ~real).any()):
        row = int((missing | ~real).argmax())
        seen = "nothing" if missing[row] else repr(str(stamps[row]))
        raise table.error(row, "hour", seen, "an hour YYMMDDHH such as 14102100", "Mend the row.")
    weekend = ((weekday == 0) | (weekday == 6)).astype(np.int64)
    cells = tuple(as_text(part) for part in (hour, weekday, weekend)) + tuple(table.column(name) for name in _KEPT)
    return Rows(table.path, table.lines, AVAZU.fields, cells, found)


AVAZU = Format(
    name="avazu",
    columns=("id", "click", "hour", *_KEPT),
    separators="," * 23,
    fields=("hour", "weekday", "is_weekend", *_KEPT),
    parse=_parse,
    label="click",
    header=True,
    thresholds=MappingProxyType(dict.fromkeys(("hour", "weekday", "is_weekend", *_KEPT), 2)),
)
"""40.4 million rows, 24 fields: `id` is dropped, `hour` becomes hour of day, weekday and weekend. The header may be
absent.

Source: Avazu, Click-Through Rate Prediction, Kaggle 2014.
"""
