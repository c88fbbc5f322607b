"""What is compared: features of cells, from pixels to codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ROWS", "Row", "chosen_rows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A kind of features.

    Arguments: `key`, as on the command line; `title`, as in tables; `method`, the autoencoder, if there is one;
    `settings`, of the autoencoder, beside the plan's; `revision`, raised when its features come to be made otherwise,
    so that trials from before are not taken for its own; `seeded`, whether it differs from seed to seed.
    """

    key: str
    title: str
    method: str = "none"
    settings: tuple[tuple[str, float | str], ...] = ()
    revision: int = 0

    @property
    def seeded(self) -> bool:
        return self.method != "none"


ROWS: Mapping[str, Row] = {
    row.key: row
    for row in (
        Row(key="pixels", title="raw pixels, 16 x 16"),
        Row(key="pixels:standard", title="raw pixels, standardised in each laboratory"),
        Row(key="hand-made", title="hand-made shape and colour, on predicted masks"),
        Row(key="hand-made:standard", title="hand-made, standardised in each laboratory"),
        Row(key="sam:start", title="SAM features, without adapters", revision=1),
        Row(key="sam", title="SAM features, without an autoencoder"),
        Row(key="sam:standard", title="SAM features, standardised in each laboratory"),
        Row(
            key="bcsam:free", title="BC-SAM without its domain loss", method="bcsam", settings=(("domain_weight", 0.0),)
        ),
        Row(key="bcsam", title="BC-SAM", method="bcsam"),
        Row(key="dorl:free", title="DoRL without its domain loss", method="dorl", settings=(("domain_weight", 0.0),)),
        Row(
            key="dorl:map",
            title="DoRL, domain loss on the map as published",
            method="dorl",
            settings=(("aligned", "map"),),
        ),
        Row(key="dorl", title="DoRL", method="dorl"),
    )
}
"""By key, in the order of the tables."""


def chosen_rows(names: Sequence[str] = ()) -> list[Row]:
    """The rows of these keys, all by default. ValueError for another key."""
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise ValueError(f"there is no row {unknown[0]!r}, expected some of: {', '.join(ROWS)}.")
    return [row for row in ROWS.values() if not names or row.key in names]
