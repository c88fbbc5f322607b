"""Saving: small, whole or not at all, readable by others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import acclimate

from .state_files import BATCH, FACTORY, parts
from .tools import assert_same, book


def test_round_trip_is_small_and_readable_by_others(saved: Path) -> None:
    """Plain safetensors with one JSON header that names its format, method, base and versions."""
    tensors, header = parts(saved)
    assert header["format"] == 2 and header["method"]["name"] == "tent" and header["torch"] == torch.__version__
    assert "stem.weight" not in tensors, "untouched weights are not saved"
    assert_same(
        tensors["weights.norm1.weight"], acclimate.load(FACTORY(), saved).state.weights["norm1.weight"], "a weight"
    )


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "pathlib.Path.replace", "pathlib.Path.open"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_crash_while_saving_leaves_the_old_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: type[BaseException]
) -> None:
    """The old file stays whole, nothing else stays behind, and the adaptation goes on."""
    adapted = acclimate.load(FACTORY(), saved)
    adapted(BATCH(7))
    old, before = saved.read_bytes(), book(adapted)

    def crash(*args: Any, **kwargs: Any) -> None:
        raise error("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(call, crash)
        if call == "os.replace":
            patch.setattr("pathlib.Path.replace", crash)
        with pytest.raises(error):
            adapted.save(saved)
    assert saved.read_bytes() == old
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]
    assert_same(book(adapted), before, "state after a failed save()")
    adapted.save(saved)
    assert saved.read_bytes() != old
    assert_same(book(acclimate.load(FACTORY(), saved)), before, "state after a second try")


def test_saving_over_a_directory_or_below_a_file(saved: Path, tmp_path: Path) -> None:
    adapted = acclimate.load(FACTORY(), saved)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    for path in (tmp_path / "folder", saved / "below"):
        with pytest.raises(OSError):
            adapted.save(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "state"]


def test_saved_file_follows_the_umask(saved: Path) -> None:
    """Another process of the same service may read it, as any other file written there."""
    plain = saved.parent / "plain"
    plain.touch()
    assert oct(saved.stat().st_mode) == oct(plain.stat().st_mode)


def test_models_with_extra_state_can_be_saved(tmp_path: Path) -> None:
    """`get_extra_state` puts things in a state dict that are no tensors."""

    class Extra(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = FACTORY()

        def get_extra_state(self) -> dict[str, int]:
            return {"version": 3}

        def set_extra_state(self, state: dict[str, int]) -> None: ...

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    adapted = acclimate.adapt(Extra(), "tent")
    adapted(BATCH(0))
    adapted.save(tmp_path / "state")
    assert_same(book(acclimate.load(Extra(), tmp_path / "state")), book(adapted), "state")


def test_the_files_name_may_be_a_string_with_a_tilde_free_path(saved: Path) -> None:
    shutil.copy(saved, saved.parent / "copy")
    assert acclimate.load(FACTORY(), str(saved.parent / "copy")).state.batches == 2
    assert acclimate.load(FACTORY(), os.fspath(saved)).state.batches == 2
