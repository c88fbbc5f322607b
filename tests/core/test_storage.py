"""State files: what is read is what was written, numbers of the header included, and older files stay readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from acclimate.core.storage import FORMAT, _digest, read_state, write_state

TENSORS = {"weights.a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
NUMBERS = {"lr": 0.001, "steps": 7, "loss": float("nan")}
HEADER: dict[str, Any] = {"scalars": NUMBERS, "list": [1, [2.5, None]], 10: "ten"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_state(tmp_path / "state.safetensors", TENSORS, HEADER)
    return tmp_path / "state.safetensors"


def _rewrite(path: Path, **change: Any) -> None:
    tensors, header = read_state(path)
    save_file(tensors, path, {"acclimate": json.dumps(header | change)})


def test_what_was_written_is_read(path: Path) -> None:
    tensors, header = read_state(path)
    assert all(tensors[name].equal(value) for name, value in TENSORS.items()) and header["format"] == FORMAT
    assert json.dumps(header["scalars"]) == json.dumps(HEADER["scalars"]) and header["10"] == "ten"
    _rewrite(path)  # as another writer orders and spaces it
    assert read_state(path)[1]["list"] == HEADER["list"]


@pytest.mark.parametrize("change", [{"scalars": {"lr": 0.002}}, {"list": [1, [2.5, 0]]}, {"more": 1}, {"format": 1}])
def test_another_header_is_not_what_was_written(path: Path, change: dict[str, Any]) -> None:
    _rewrite(path, **change)
    with pytest.raises(ValueError, match="are not those that were written"):
        read_state(path)


def test_the_first_format_is_read_and_later_ones_are_refused(path: Path) -> None:
    _rewrite(path, format=1, digest=_digest(TENSORS))
    assert read_state(path)[1]["scalars"]["steps"] == 7
    _rewrite(path, format=FORMAT + 1)
    with pytest.raises(ValueError, match="Update acclimate"):
        read_state(path)


@pytest.mark.parametrize("version", [0, -1, float("inf"), "1", None, [1], 1.5])
def test_what_is_no_format_is_damage(path: Path, version: Any) -> None:
    _rewrite(path, format=version)
    with pytest.raises(ValueError, match="is damaged: format"):
        read_state(path)
