"""The names of cells: in the two large public sets, in the four small laboratories, and what they have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["ACEVEDO_CODES", "COMMON", "FOUR", "MATEK_CODES", "UNIFIED", "joined", "plain"]

COMMON = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
"""The classes of the four laboratories, in the order of their stored labels, which count from 1."""

FOUR = COMMON[:4]
"""Those with enough cells: two of the laboratories have three basophils between them."""

UNIFIED = (
    "basophil", "eosinophil", "erythroblast", "myeloblast", "promyelocyte", "myelocyte", "metamyelocyte",
    "neutrophil_banded", "neutrophil_segmented", "monocyte", "lymphocyte_typical", "lymphocyte_atypical", "smudge_cell",
)  # fmt: skip
"""The classes of Matek-19 and Acevedo-20 under one set of names, in the order of the papers' numbers."""

MATEK_CODES: Mapping[str, str | None] = {
    "BAS": "basophil", "EOS": "eosinophil", "EBO": "erythroblast", "MYO": "myeloblast", "PMO": "promyelocyte",
    "MYB": "myelocyte", "MMZ": "metamyelocyte", "NGB": "neutrophil_banded", "NGS": "neutrophil_segmented",
    "MON": "monocyte", "MOB": "monocyte", "LYT": "lymphocyte_typical", "LYA": "lymphocyte_atypical",
    "KSC": "smudge_cell", "PMB": None,
}  # fmt: skip
"""Codes of Matek-19 and their class; monoblasts (MOB) count as monocytes. None: dropped, it has no counterpart."""

ACEVEDO_CODES: Mapping[str, str | None] = {
    "BA": "basophil", "EO": "eosinophil", "ERB": "erythroblast", "PMY": "promyelocyte", "MY": "myelocyte",
    "MMY": "metamyelocyte", "BNE": "neutrophil_banded", "SNE": "neutrophil_segmented", "MO": "monocyte",
    "LY": "lymphocyte_typical", "IG": None, "NEUTROPHIL": None, "PLATELET": None,
}  # fmt: skip
"""Codes of Acevedo-20 and their class. None: dropped, it says too little about the class or is no white cell."""


def plain(name: str) -> str:
    """A name without what people vary: case, and which of hyphens, underscores and spaces stand between words.

    >>> plain("Smudge-Cell") == plain("smudge  cell") == plain("smudge_cell")
    True
    """
    return re.sub(r"[-_\s]+", " ", name).strip().casefold()


def joined(names: Iterable[str]) -> dict[str, str]:
    """For each name the first of those that are the same under `plain`.

    >>> joined(["neutrophil", "Monocyte", "Neutrophil"])
    {'neutrophil': 'neutrophil', 'Monocyte': 'Monocyte', 'Neutrophil': 'neutrophil'}
    """
    first: dict[str, str] = {}
    return {name: first.setdefault(plain(name), name) for name in names}
