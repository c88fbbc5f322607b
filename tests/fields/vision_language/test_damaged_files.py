"""Files of features that are damaged in one way or another, or were made to be: each a ValueError with its name."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from acclimate.fields.vision_language import read_features

ARRAYS = {"clip": np.random.default_rng(0).random((600, 24)), "text": np.ones((4, 24)), "logit_scale": np.array(50.0)}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def packed(kind: int) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=kind) as file:
        for name, array in ARRAYS.items():
            file.writestr(f"{name}.npy", npy(array))
    return bytearray(buffer.getvalue())


def altered(kind: int, place: int, count: int = 12) -> bytes:
    data = packed(kind)
    data[place : place + count] = bytes(byte ^ 0x5A for byte in data[place : place + count])
    return bytes(data)


def listed(offset: int, value: int) -> bytes:
    """One byte of the first entry of the list at the end of the archive is another."""
    data = packed(zipfile.ZIP_DEFLATED)
    data[data.find(b"PK\x01\x02") + offset] = value
    return bytes(data)


def holding(clip: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("clip.npy", clip)
    return buffer.getvalue()


def endless() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**13, 8)})
    return holding(buffer.getvalue())


DAMAGED = {
    "deflated": altered(zipfile.ZIP_DEFLATED, 60),
    "by LZMA": altered(zipfile.ZIP_LZMA, 60),
    "encrypted": listed(8, 1),
    "packed in an unknown way": listed(10, 99),
    "of endless length": endless(),
    "a header that is no Python": holding(npy(np.eye(3)).replace(b"{", b"(", 1)),
    "cut": bytes(packed(zipfile.ZIP_DEFLATED)[:3000]),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_archives(tmp_path: Path, kind: str):
    path = tmp_path / "a.npz"
    path.write_bytes(bytes(packed(zipfile.ZIP_LZMA)))
    assert len(read_features(path)) == 600
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(ValueError, match=r"a\.npz is not a whole \.npz file"):
        read_features(path)


def test_tensors_of_eight_bits_and_names_that_are_nested_without_end(tmp_path: Path):
    tensors = {name: torch.from_numpy(array).float() for name, array in ARRAYS.items()}
    path, wide = tmp_path / "a.safetensors", json.dumps(["a", "b", "c", "d"])
    path.write_bytes(save(tensors, {"classes": wide}))
    assert read_features(path).classes == ("a", "b", "c", "d")
    path.write_bytes(save({**tensors, "clip": tensors["clip"].to(torch.float8_e4m3fn)}))
    with pytest.raises(ValueError, match=r"a\.safetensors: .*float8_e4m3fn.* of 16 bits or more"):
        read_features(path)
    path.write_bytes(save(tensors, {"classes": "[" * 100_000}))
    with pytest.raises(ValueError, match=r"a\.safetensors has metadata 'classes' that is no JSON"):
        read_features(path)
    path.write_bytes(save({**tensors, "logit_scale": torch.tensor(5 + 0j)}))
    with pytest.raises(ValueError, match=r"a\.safetensors has logit_scale torch.complex64"):
        read_features(path)
