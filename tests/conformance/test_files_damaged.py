"""State files whose bytes or tensors are damaged are refused in words, and nothing changes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import acclimate

from .state_files import BATCH, FACTORY, refused, rewrite

TENSORS = (
    "weights.norm1.weight",
    "normalization.norm1.running_mean",
    "optimizer/state/norm1.weight/exp_avg",
    "optimizer/state/norm1.weight/step",
)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_truncated(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    refused(saved)


def test_longer(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0" * 8)
    refused(saved)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_of_the_header(saved: Path, seed: int) -> None:
    """One flipped bit of the header: refused, or (in a number that cannot be checked) loaded without harm."""
    data = bytearray(saved.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    generator = torch.Generator().manual_seed(seed)
    place = int(torch.randint(0, 8 + length, (), generator=generator))
    data[place] ^= 1 << int(torch.randint(0, 8, (), generator=generator))
    saved.write_bytes(data)
    try:
        loaded = acclimate.load(FACTORY(), saved)
    except ValueError as error:
        assert str(error)
    else:
        assert bool(loaded(BATCH(5)).isfinite().all())


def test_enormous_header(saved: Path) -> None:
    saved.write_bytes(struct.pack("<Q", 2**62) + saved.read_bytes()[8:])
    refused(saved)


@pytest.mark.parametrize("name", TENSORS)
def test_missing_tensor(saved: Path, name: str) -> None:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        del tensors[name]

    rewrite(saved, change)
    refused(saved)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("how", ["shape", "type", "axes"])
def test_wrong_tensor(saved: Path, name: str, how: str) -> None:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        tensor = tensors[name]
        wrong = {"shape": torch.zeros(3), "type": tensor.double(), "axes": torch.zeros(1, 1, *tensor.shape)}
        tensors[name] = wrong[how].contiguous()

    rewrite(saved, change)
    refused(saved)


@pytest.mark.parametrize(
    "name",
    [
        "stranger",
        "optimizer/state/stranger/exp_avg",
        "optimizer/state/norm1.weight",
        "optimizer/group/7/lr",
        "optimizer/group/0/lr",
        "optimizer",
        "optimizer/state",
        "other/state/norm1.weight/exp_avg",
        "generator/views",
        "stem.weight",
    ],
)
def test_unknown_tensor(saved: Path, name: str) -> None:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        tensors[name] = torch.zeros(2)

    rewrite(saved, change)
    refused(saved)


def test_damaged_generator(tmp_path: Path) -> None:
    adapted = acclimate.adapt(FACTORY(), "palm")
    adapted.save(tmp_path / "state")

    for wrong in (torch.zeros(3, dtype=torch.uint8), torch.zeros(3)):

        def change(tensors: dict[str, Tensor], header: dict[str, Any], wrong: Tensor = wrong) -> None:
            tensors["generator/views"] = wrong

        rewrite(tmp_path / "state", change)
        refused(tmp_path / "state")
