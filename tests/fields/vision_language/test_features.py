"""Files of features: what is written is read, and answers as its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from acclimate.fields.vision_language import (
    Features,
    adapt,
    read_features,
    write_features,
)


def features(**changes: Any) -> Features:
    generator = torch.Generator().manual_seed(0)
    arrays: dict[str, Any] = {
        "clip": torch.randn(7, 3, 8, generator=generator),
        "text": torch.randn(4, 8, generator=generator),
        "logit_scale": 14.3,
        "auxiliary": torch.randn(7, 5, generator=generator),
        "simple": torch.randn(4, 8, generator=generator),
        "labels": torch.tensor([0, 1, 2, 3, -1, 1, 0]),
        "classes": ("tench", "crane", "crane of iron", "Ægyptian cat"),
    }
    return Features(**{**arrays, **changes})


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, dtype: torch.dtype):
    given = features()
    written = features(clip=given.clip.to(dtype), auxiliary=given.auxiliary.to(dtype))  # type: ignore[union-attr]
    path = write_features(tmp_path / f"pets.{suffix}", written)
    found = read_features(path)
    for name in ("clip", "text", "auxiliary", "simple", "labels"):
        assert torch.equal(getattr(found, name).double(), getattr(written, name).double()), name
    kept = torch.float32 if (suffix, dtype) == ("npz", torch.bfloat16) else dtype
    assert found.clip.dtype == kept and found.labels is not None and found.labels.dtype == torch.int64
    assert (found.logit_scale, found.classes, found.name) == (14.3, given.classes, "pets")
    assert read_features(path, name="dogs").name == "dogs" and found.views == 3 and len(found) == 7


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_the_least_that_a_file_may_hold(tmp_path: Path, suffix: str):
    path = write_features(tmp_path / f"a.{suffix}", Features(clip=torch.eye(3), text=torch.eye(2, 3)))
    found = read_features(path)
    assert found.clip.shape == (3, 1, 3) and found.logit_scale == 100
    assert found.auxiliary is None and found.labels is None and found.simple is None and found.classes == ()
    assert [batch.labels.tolist() for batch in found.batches()] == [[-1, -1, -1]]
    with pytest.raises(ValueError, match="no texts of plain prompts"):
        found.model(simple=True)


def test_files_of_others(tmp_path: Path):
    """Whole labels of any width, single views, a scale of one axis, arrays that nobody knows."""
    arrays = {"clip": np.eye(3), "text": np.eye(2, 3), "logit_scale": np.array([50]), "labels": np.uint8([1, 0, 1])}
    np.savez(tmp_path / "a.npz", **arrays, notes=np.array(["x"]))
    found = read_features(tmp_path / "a.npz")
    assert found.labels is not None and found.labels.tolist() == [1, 0, 1] and found.logit_scale == 50
    tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
    save_file({**tensors, "notes": torch.zeros(2, 2)}, tmp_path / "b.safetensors")
    assert read_features(tmp_path / "b.safetensors").classes == ()


def _even(rows: Tensor) -> Tensor:
    """At a largest entry of 1: directions alone count."""
    return rows / rows.abs().amax(-1, keepdim=True)


def test_batches():
    given = features()
    found = list(given.batches(batch_size=3, seed=4))
    index = torch.cat([batch.index for batch in found])
    assert sorted(index.tolist()) == list(range(7)) and index.tolist() != list(range(7))
    assert torch.equal(_even(torch.cat([batch.images for batch in found])), _even(given.clip[index]))
    auxiliary = torch.cat([batch.auxiliary for batch in found])  # type: ignore[misc]
    assert torch.equal(_even(auxiliary), _even(given.auxiliary[index]))  # type: ignore[index]
    assert torch.equal(torch.cat([batch.labels for batch in found]), given.labels[index])  # type: ignore[index]
    assert [batch.images.shape for batch in given.batches(batch_size=3, seed=None, size=2, views=2)] == [(2, 2, 8)]
    assert [batch.index.tolist() for batch in given.batches(seed=None, size=3)] == [[0, 2, 4]]
    for options in ({"batch_size": 0}, {"size": 0}):
        with pytest.raises(ValueError):
            list(given.batches(**options))


def test_features_answer_as_their_model():
    given = features()
    adapted = adapt(given.model(), method="zero-shot")
    (batch,) = given.batches(seed=None)
    rows, text = (array / array.norm(dim=-1, keepdim=True) for array in (given.clip[:, 0], given.text))
    assert torch.allclose(adapted(batch.images), 14.3 * rows @ text.T, atol=1e-5)
