"""State files whose header lacks something or says what cannot be are refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import Tensor

from .state_files import KEY, parts, refused, rewrite


def _without(*path: str) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        place = header
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def _with(value: Any, *path: str) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        place = header
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "path",
    [
        ("format",),
        ("method",),
        ("answer",),
        ("seed",),
        ("scalars",),
        ("base",),
        ("method", "name"),
        ("scalars", "counters"),
        ("scalars", "counters", "batches"),
        ("scalars", "optimizers"),
        ("scalars", "optimizers", "optimizer"),
        ("scalars", "optimizers", "optimizer", "groups"),
        ("scalars", "optimizers", "optimizer", "states"),
    ],
    ids=".".join,
)
def test_header_lacks_a_field(saved: Path, path: tuple[str, ...]) -> None:
    rewrite(saved, _without(*path))
    refused(saved)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("one", ("format",)),
        (None, ("format",)),
        (0, ("format",)),
        (-1, ("format",)),
        ("tent", ("method",)),
        ("nobody", ("method", "name")),
        (3, ("method", "name")),
        (["tent"], ("method", "name")),
        (-1.0, ("method", "learning_rate")),
        ("fast", ("method", "learning_rate")),
        (None, ("method", "learning_rate")),
        (1.0, ("method", "unheard_of")),
        ({"name": "nobody"}, ("method", "normalization")),
        ({}, ("method", "normalization")),
        ("sometimes", ("answer",)),
        ("x", ("seed",)),
        ([], ("scalars",)),
        ([], ("scalars", "counters")),
        ("many", ("scalars", "counters", "batches")),
        (-5, ("scalars", "counters", "batches")),
        ([], ("scalars", "optimizers")),
        ([], ("scalars", "optimizers", "optimizer")),
        ([], ("scalars", "optimizers", "optimizer", "groups")),
        ([7], ("scalars", "optimizers", "optimizer", "groups")),
        ({"stranger": {"step": 1}}, ("scalars", "optimizers", "optimizer", "states")),
        (7, ("base",)),
        ("0" * 64, ("base",)),
    ],
    ids=str,
)
def test_header_is_garbled(saved: Path, value: Any, path: tuple[str, ...]) -> None:
    rewrite(saved, _with(value, *path))
    refused(saved)


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '"x"', "{", "[" * 100_000])
def test_header_is_no_record(saved: Path, text: str) -> None:
    tensors, _ = parts(saved)
    save_file(tensors, saved, {KEY: text})
    refused(saved)


def test_newer_format_asks_for_an_update(saved: Path) -> None:
    rewrite(saved, _with(3, "format"))
    refused(saved, "[Uu]pdate")
