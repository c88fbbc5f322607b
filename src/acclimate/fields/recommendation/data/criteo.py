"""Criteo display advertising: a label, 13 integers and 26 categories, separated by tabs, without a header."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from acclimate.fields.recommendation.data.cells import Table
from acclimate.fields.recommendation.data.numbers import as_text, integers, labels
from acclimate.fields.recommendation.data.reading import Format, Rows

__all__ = ["CRITEO", "squared_logarithm"]

_INTEGERS = tuple(f"I{number}" for number in range(1, 14))
_CATEGORIES = tuple(f"C{number}" for number in range(1, 27))
_LABEL = "label"


def squared_logarithm(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """`floor(ln(v)^2)` of each number above 2, the others as they are: `[N]`.

    So counts become few categories, narrow where counts are small. As published, results overlap with what is left as
    it is: 3 becomes 1.

    >>> squared_logarithm(np.array([-1, 2, 3, 10, 100])).tolist()
    [-1, 2, 1, 5, 21]
    """
    return np.where(values > 2, np.floor(np.log(np.maximum(values, 1)) ** 2).astype(np.int64), values)


def _parse(table: Table) -> Rows:
    found = labels(table, _LABEL, {"0": 0, "1": 1})
    numbers = [integers(table, name) for name in _INTEGERS]
    cells = [as_text(squared_logarithm(values), missing) for values, missing in numbers]
    cells += [table.column(name) for name in _CATEGORIES]
    return Rows(table.path, table.lines, CRITEO.fields, tuple(cells), found)


CRITEO = Format(
    name="criteo",
    columns=(_LABEL, *_INTEGERS, *_CATEGORIES),
    separators="\t" * 39,
    fields=(*_INTEGERS, *_CATEGORIES),
    parse=_parse,
    label=_LABEL,
    thresholds=MappingProxyType(dict.fromkeys(_CATEGORIES, 10)),
)
"""45.8 million rows, 39 fields. Integers become categories by `squared_logarithm`, a missing one a category of its own
(an empty cell or `nan`; an infinite one is an error).

Source: Criteo Labs, Display Advertising Challenge, Kaggle 2014; the transform is that of its winners (Y. Juan et al.).
"""
