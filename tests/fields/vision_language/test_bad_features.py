"""Feature files and arrays that cannot be used are told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from acclimate.fields.vision_language import Features, read_features, write_features

from .test_features import features


def test_files_that_are_no_feature_files(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no feature file .*none\.npz"):
        read_features(tmp_path / "none.npz")
    for name in ("a.pt", "a"):
        with pytest.raises(ValueError, match=r"expected \.safetensors or \.npz"):
            read_features(tmp_path / name)
    with pytest.raises(ValueError, match=r"ends in '\.pkl'"):
        write_features(tmp_path / "a.pkl", features())
    whole = write_features(tmp_path / "a.npz", features()).read_bytes()
    for name, data in [("b.npz", whole[:200]), ("c.npz", b""), ("d.npz", b"x" * 99), ("e.npz", _npy(np.eye(2)))]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} is not a whole"):
            read_features(tmp_path / name)
    whole = write_features(tmp_path / "a.safetensors", features()).read_bytes()
    for data in (whole[:-9], b"", b"x" * 99):
        (tmp_path / "f.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match=r"f\.safetensors is not a whole"):
            read_features(tmp_path / "f.safetensors")


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_pickled_objects_are_not_read(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    trap = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "a.npz", clip=np.eye(3), text=trap, logit_scale=np.array(1.0), allow_pickle=True)
    with pytest.raises(ValueError, match="Objects are not read"):
        read_features(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", clip=np.eye(3), text=np.eye(3), logit_scale=np.array(1.0), classes=trap)
    with pytest.raises(ValueError, match="Objects are not read"):
        read_features(tmp_path / "b.npz")
    assert not (tmp_path / "sprung").exists()


def _nan(rows: list[int], like: Tensor) -> Tensor:
    found = like.clone()
    found[rows, ..., 0] = float("nan")
    return found


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "rank of clip": ({"clip": torch.ones(7)}, r"clip .* \[7\], expected floats \[n, D\] or \[n, V, D\]|clip.*expected"),
    "no images": ({"clip": torch.ones(0, 8)}, r"clip .*\[0, 1, 8\]"),
    "rank of text": ({"text": torch.ones(4, 2, 8)}, r"text .* expected floats \[K, 8\]"),
    "width of text": ({"text": torch.ones(4, 9)}, r"text .*\[4, 9\], expected floats \[K, 8\]"),
    "no classes": ({"text": torch.ones(0, 8), "simple": None}, r"text .*\[0, 8\]"),
    "rows of auxiliary": ({"auxiliary": torch.ones(6, 5)}, r"auxiliary .*\[6, 5\], expected floats \[7, A\]"),
    "rank of auxiliary": ({"auxiliary": torch.ones(7, 3, 5)}, r"auxiliary .* expected floats \[7, A\]"),
    "rows of simple": ({"simple": torch.ones(3, 8)}, r"simple .* expected floats \[4, 8\]"),
    "whole clip": ({"clip": torch.ones(7, 8, dtype=torch.int64)}, "int64.*expected floats"),
    "scale": ({"logit_scale": 0.0}, "logit_scale 0, expected a finite number above 0"),
    "scale that is none": ({"logit_scale": float("nan")}, "logit_scale nan"),
    "logarithm": ({"logit_scale": 4.6052}, "not its logarithm"),
    "names": ({"classes": ("a", "b")}, "2 names for 4 rows"),
    "names that repeat": ({"classes": ("a", "a_b", "a b", "c")}, "found class names more than once: a b"),
    "a name that is none": ({"classes": ("a", "", "b", "c")}, "class 1 has an empty name"),
    "length of labels": (
        {"labels": torch.zeros(6, dtype=torch.int64)},
        r"labels .*\[6\], expected whole numbers \[7\]",
    ),
    "fractional labels": ({"labels": torch.zeros(7)}, "labels torch.float32"),
    "labels too large": ({"labels": torch.tensor([0, 0, 4, 0, 0, 9, 0])}, "2 labels out of range, such as 4 in row 2"),
    "labels too small": ({"labels": torch.tensor([0, -2, 0, 0, 0, 0, 0])}, "such as -2 in row 1"),
    "NaN in clip": ({"clip": _nan([2, 5], torch.ones(7, 3, 8))}, "2 rows of clip that are not finite: 2, 5"),
    "NaN in text": ({"text": _nan([1], torch.ones(4, 8))}, "1 rows of text that are not finite: 1"),
    "NaN in auxiliary": ({"auxiliary": _nan(list(range(7)), torch.ones(7, 5))}, r"not finite: 0, 1, 2, 3, 4, \.\.\."),
    "zeros in auxiliary": ({"auxiliary": torch.eye(7, 5)}, "2 rows of auxiliary that are all zero: 5, 6"),
    "an infinity": ({"clip": torch.full((7, 8), float("inf"))}, "7 rows of clip that are not finite"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_bad_arrays_are_told(tmp_path: Path, case: str, suffix: str):
    changes, told = BAD[case]
    with pytest.raises(ValueError, match=told):
        features(**changes)
    arrays = {name: getattr(features(), name) for name in ("clip", "text", "auxiliary", "simple", "labels")}
    scale, names = changes.get("logit_scale", 14.3), changes.get("classes", features().classes)
    arrays |= {name: value for name, value in changes.items() if isinstance(value, Tensor)}
    arrays["logit_scale"] = torch.tensor(scale)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, **{name: array.numpy() for name, array in arrays.items()}, classes=np.array(names))
    else:
        path.write_bytes(save(arrays, {"classes": json.dumps(names)}))
    with pytest.raises(ValueError, match=told) as found:
        read_features(path)
    assert str(path) in str(found.value)


@pytest.mark.parametrize("missing", ["clip", "text", "logit_scale"])
@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_missing_arrays_are_named(tmp_path: Path, missing: str, suffix: str):
    arrays = {"clip": torch.eye(3), "text": torch.eye(3), "logit_scale": torch.tensor(1.0)}
    del arrays[missing]
    path = tmp_path / f"a.{suffix}"
    np.savez(path, **arrays) if suffix == "npz" else save_file(arrays, path)
    with pytest.raises(ValueError, match=f"{missing} are missing"):
        read_features(path)


def test_odd_entries_are_told(tmp_path: Path):
    whole = {"clip": torch.eye(3), "text": torch.eye(3), "logit_scale": torch.tensor(1.0)}
    cases = [
        ({**whole, "logit_scale": torch.ones(2)}, {}, r"logit_scale torch.float32 \[2\]"),
        ({**whole, "labels": torch.tensor(1)}, {}, "a single number as labels"),
        (whole, {"classes": "{"}, "no JSON"),
        (whole, {"classes": "[1, 2, 3]"}, "JSON list of names"),
    ]
    for arrays, metadata, told in cases:
        (tmp_path / "a.safetensors").write_bytes(save(arrays, metadata))
        with pytest.raises(ValueError, match=told):
            read_features(tmp_path / "a.safetensors")
    for extra, told in [({"classes": np.eye(3)}, "array of K strings"), ({"labels": np.array(["x"] * 3)}, "<U1")]:
        np.savez(tmp_path / "a.npz", **{**whole, **extra})
        with pytest.raises(ValueError, match=told):
            read_features(tmp_path / "a.npz")


def test_arrays_of_another_kind_are_told(tmp_path: Path):
    whole: dict[str, Any] = {"clip": torch.eye(3), "text": torch.eye(3)}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"clip": torch.tensor(1.0)}, "a single number as clip"),
        ({"text": torch.tensor(1.0)}, "a single number as text"),
        ({"clip": np.eye(3)}, "ndarray as clip"),
        ({"labels": [0, 1, 2]}, "list as labels"),
        ({"labels": torch.zeros(3, dtype=torch.complex64)}, "labels torch.complex64"),
        ({"clip": torch.eye(3).to(torch.float8_e4m3fn)}, "clip torch.float8_e4m3fn .* of 16 bits or more"),
        ({"text": torch.eye(3).to(torch.complex64)}, "text torch.complex64"),
    ]
    for changes, told in cases:
        with pytest.raises(ValueError, match=told):
            Features(**{**whole, **changes})
    for views in (0, -1):
        with pytest.raises(ValueError, match="views must be a whole number of at least 1"):
            list(Features(**whole).batches(views=views))
