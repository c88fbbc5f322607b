"""Lines of libfm: a label and one `id:1` for each field."""

from __future__ import annotations

from collections.abc import Sequence

from acclimate.fields.recommendation.data.cells import Table
from acclimate.fields.recommendation.data.numbers import labels
from acclimate.fields.recommendation.data.reading import Format, Rows

__all__ = ["FRAPPE", "libfm"]


def libfm(name: str, fields: Sequence[str]) -> Format:
    """Files whose every line is `label id:1 id:1 ...`, one id for each field, in the same order everywhere.

    Labels are 1, and -1 or 0. Ids are taken as texts, whatever numbering they follow: the vocabulary gives them new
    ones.

    Arguments:
        name: of the format.
        fields: names, in the order of the ids.

    Raises:
        ValueError: no fields.

    >>> libfm("pairs", ["user", "item"]).columns
    ('label', 'user', 'value of user', 'item', 'value of item')
    """
    if isinstance(fields, str) or not fields:
        raise ValueError(f"fields is {fields!r}; expected a sequence of one name or more.")
    names = tuple(fields)

    def parse(table: Table) -> Rows:
        found = labels(table, "label", {"-1": 0, "0": 0, "1": 1})
        for field in names:
            labels(table, f"value of {field}", {"1": 1})
        return Rows(table.path, table.lines, names, tuple(table.column(field) for field in names), found)

    columns = ("label", *(column for field in names for column in (field, f"value of {field}")))
    return Format(name=name, columns=columns, separators=" :" * len(names), fields=names, parse=parse, label="label")


FRAPPE = libfm(
    "frappe",
    ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"),
)
"""Use of mobile applications in context, 10 fields; two sampled negatives for each positive.

Source: L. Baltrunas et al., Frappe: Understanding the usage and perception of mobile app recommendations in-the-wild,
2015, in the files of X. He and T.-S. Chua, Neural factorization machines, SIGIR 2017. For research.
"""
