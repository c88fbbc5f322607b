"""UCI Adult: whether a person earns more than 50,000 dollars a year; a stand-in for clicks with a free licence."""

from __future__ import annotations

import numpy as np

from acclimate.fields.recommendation.data.cells import Cells, Table
from acclimate.fields.recommendation.data.numbers import decimals, labels
from acclimate.fields.recommendation.data.reading import Format, Rows

__all__ = ["ADULT", "ADULT_NUMBERS"]

ADULT_NUMBERS = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
"""The fields that hold numbers: `buckets.Buckets` makes categories of them."""

_FIELDS = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race",
    "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country",
)  # fmt: skip
_MEANING = {"<=50K": 0, ">50K": 1, "<=50K.": 0, ">50K.": 1}


def _column(table: Table, name: str) -> Cells:
    if name in ADULT_NUMBERS:
        decimals(table, name)  # so that what is no number is found where its row is known
    cells = table.column(name)
    return np.where(cells == b"?", b"", cells).astype(cells.dtype)


def _parse(table: Table) -> Rows:
    found = labels(table, "income", _MEANING)
    return Rows(table.path, table.lines, _FIELDS, tuple(_column(table, name) for name in _FIELDS), found)


ADULT = Format(
    name="adult", columns=(*_FIELDS, "income"), separators="," * 14, fields=_FIELDS, parse=_parse, label="income"
)
"""32,561 rows of training and 16,281 of test, 14 fields; labels of the test file end in a dot, `?` is missing.

Source: B. Becker and R. Kohavi, Adult, UCI Machine Learning Repository 1996, CC BY 4.0.
"""
