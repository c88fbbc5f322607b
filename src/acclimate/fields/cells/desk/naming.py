"""Laboratories whose labels mean the same, though people write the names of classes differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from acclimate.fields.cells.data.classes import joined, plain
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory

__all__ = ["joined_note", "relabelled", "together"]


def relabelled(laboratory: Laboratory, classes: tuple[str, ...]) -> Laboratory:
    """The same cells with labels that count in `classes`, whose names are compared as by `plain`; those of other
    classes become unknown."""
    known = {plain(name): place for place, name in enumerate(classes)}
    places = [known.get(plain(name), UNKNOWN) for name in laboratory.classes]
    table = torch.tensor([*places, UNKNOWN])  # the last is for UNKNOWN
    return replace(laboratory, labels=table[laboratory.labels], classes=classes)


def together(laboratories: Sequence[Laboratory]) -> list[Laboratory]:
    """All with labels that count in the same classes: those that have cells anywhere, as they are first written."""
    names = tuple(dict.fromkeys(joined(name for each in laboratories for name in _with_cells(each)).values()))
    return [relabelled(each, names) for each in laboratories]


def joined_note(laboratories: Sequence[Laboratory]) -> str:
    """Which names of classes of different laboratories count as one; empty where none do."""
    first = joined(name for each in laboratories for name in _with_cells(each))
    told = [f"{name} counts as {one}" for name, one in first.items() if name != one]
    return "; ".join(told)


def _with_cells(laboratory: Laboratory) -> list[str]:
    return [name for label, name in enumerate(laboratory.classes) if bool((laboratory.labels == label).any())]
