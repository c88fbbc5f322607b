"""Files of features: what is written is read, what is wrong is told, and encoding goes on where it stopped."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from acclimate.fields.vision_language import (
    Features,
    LabelledImages,
    VisionLanguage,
    adapt,
    encode_features,
    read_features,
    write_features,
)

from .test_data import preprocess


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


class Tower(nn.Module):
    """Features that tell images and views apart, and how many images have come."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(48, width)
        self.seen: list[int] = []
        self.stop = 10**9

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if sum(self.seen) > self.stop:
            raise KeyboardInterrupt
        return self.project(x.flatten(1))


def towers(folder: Path, count: int = 10) -> tuple[VisionLanguage, LabelledImages, Tower, Tower]:
    torch.manual_seed(0)
    clip, second = Tower(8), Tower(6)
    model = VisionLanguage(clip, torch.randn(3, 8), logit_scale=20.0, auxiliary=second).eval()
    paths = tuple(folder / f"{number}.png" for number in range(count))
    for pixels, path in zip(torch.randint(256, (count, 9, 8, 3), dtype=torch.uint8), paths, strict=True):
        Image.fromarray(pixels.numpy()).save(path)
    labels = torch.arange(count) % 3
    return model, LabelledImages("ten", ("a", "b", "c"), paths, labels, folder), clip, second


def test_encoding(tmp_path: Path):
    model, images, clip, second = towers(tmp_path)
    told: list[tuple[int, int, str]] = []
    path = encode_features(
        tmp_path / "ten.npz", model, images, preprocess, views=3, batch_size=4, shard=6, dtype=torch.float32,
        simple=torch.eye(3, 8), progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert told == [(4, 10, "ten"), (6, 10, "ten"), (10, 10, "ten")]
    assert sum(clip.seen) == 30 and sum(second.seen) == 10
    found = read_features(path)
    assert found.clip.shape == (10, 3, 8) and found.auxiliary is not None and found.auxiliary.shape == (10, 6)
    assert found.labels is not None and found.labels.tolist() == images.labels.tolist()
    assert found.classes == images.classes and found.logit_scale == 20 and found.simple is not None
    (batch,) = images.batches(preprocess, seed=None)
    with torch.no_grad():
        own = nn.functional.normalize(clip.project(batch.images.flatten(1)), dim=1)
    assert torch.allclose(found.clip[:, 0], own, atol=1e-6)
    assert not torch.allclose(found.clip[:, 1], found.clip[:, 2], atol=1e-3)
    answers = adapt(model, method="zero-shot")(batch.images)
    assert torch.allclose(adapt(found.model(), method="zero-shot")(found.clip), answers, atol=1e-4)
    again = encode_features(tmp_path / "b.safetensors", model, images, preprocess, views=3, batch_size=1, shard=10)
    half = read_features(again)
    assert half.clip.dtype == torch.float16, "and neither batches nor pieces change anything"
    assert torch.allclose(half.clip.float(), found.clip, atol=1e-3)
    assert not list(tmp_path.glob("*.parts"))


def test_names_that_repeat_are_told_before_anything_is_encoded(tmp_path: Path):
    model, images, clip, _ = towers(tmp_path)
    images = replace(images, classes=("crane", "tench", "crane"))
    with pytest.raises(ValueError, match="found class names more than once: crane"):
        encode_features(tmp_path / "a.npz", model, images, preprocess)
    assert clip.seen == []
    path = encode_features(tmp_path / "a.npz", model, images, preprocess, repeats=True)
    with pytest.raises(ValueError, match=r"a\.npz: .*found class names more than once: crane"):
        read_features(path)
    assert read_features(path, repeats=True).classes == images.classes


def test_encoding_goes_on_where_it_stopped(tmp_path: Path):
    model, images, clip, _ = towers(tmp_path)
    whole = read_features(encode_features(tmp_path / "a.npz", model, images, preprocess, shard=3, batch_size=2))
    clip.seen.clear()
    clip.stop = 7
    path = tmp_path / "b.npz"
    with pytest.raises(KeyboardInterrupt):
        encode_features(path, model, images, preprocess, shard=3, batch_size=2)
    (parts,) = tmp_path.glob("b-*.parts")
    assert len(list(parts.iterdir())) == 2 and not path.exists()
    (parts / "0000003.safetensors").write_bytes(b"broken")
    clip.seen.clear()
    clip.stop = 10**9
    found = read_features(encode_features(path, model, images, preprocess, shard=3, batch_size=2))
    assert sum(clip.seen) == 7, "one piece was whole"
    assert torch.equal(found.clip, whole.clip) and torch.equal(found.auxiliary, whole.auxiliary)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*.parts"))


def test_other_settings_begin_anew(tmp_path: Path):
    model, images, clip, _ = towers(tmp_path, 4)
    path = tmp_path / "a.npz"
    for change in ({}, {"views": 2}, {"seed": 1}, {"encoders": "other"}):
        clip.seen.clear()
        clip.stop = 3
        with pytest.raises(KeyboardInterrupt):
            encode_features(path, model, images, preprocess, shard=1, batch_size=1, **change)  # type: ignore[arg-type]
    assert len(list(tmp_path.glob("a-*.parts"))) == 4
    with torch.no_grad():
        clip.project.weight.mul_(2)
    clip.seen.clear()
    with pytest.raises(KeyboardInterrupt):
        encode_features(path, model, images, preprocess, shard=1, batch_size=1)
    assert len(list(tmp_path.glob("a-*.parts"))) == 5


def test_encoding_leaves_out_what_cannot_be_read(tmp_path: Path):
    model, images, _, _ = towers(tmp_path)
    images.paths[4].write_bytes(b"no image")
    images.paths[9].unlink()
    with pytest.raises(ValueError, match=r"4\.png"):
        encode_features(tmp_path / "a.npz", model, images, preprocess)
    path = encode_features(tmp_path / "a.npz", model, images, preprocess, damaged="skip", shard=1)
    found = read_features(path)
    assert found.labels is not None and found.labels.tolist() == [0, 1, 2, 0, 2, 0, 1, 2]
    for image in images.paths:
        image.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="none of the 10 images"):
        encode_features(tmp_path / "b.npz", model, images, preprocess, damaged="skip")
    with pytest.raises(ValueError, match="without an image encoder"):
        encode_features(tmp_path / "b.npz", found.model(), images, preprocess)


def test_a_file_without_a_second_encoder(tmp_path: Path):
    model, images, clip, _ = towers(tmp_path, 3)
    alone = VisionLanguage(clip, model.text_features, logit_scale=20.0).eval()
    path = encode_features(tmp_path / "a.safetensors", alone, images, preprocess)
    assert set(load_file(path)) == {"clip", "text", "logit_scale", "labels"}
    assert read_features(path).auxiliary is None


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


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({"name": "a.pt"}, {}, "ends in '.pt'"),
        ({}, {"dtype": torch.int8}, "clip torch.int8"),
        ({}, {"dtype": torch.float8_e4m3fn}, "of 16 bits or more"),
        ({}, {"simple": torch.eye(2, 8)}, r"simple .* expected floats \[3, 8\]"),
        ({"texts": torch.eye(4, 8)}, {}, "3 names for 4 rows"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_encoded(tmp_path, changes, options, told):
    model, images, clip, _ = towers(tmp_path)
    if "texts" in changes:
        model = VisionLanguage(clip, changes["texts"]).eval()
    with pytest.raises(ValueError, match=told):
        encode_features(tmp_path / changes.get("name", "a.npz"), model, images, preprocess, **options)
    assert clip.seen == [] and not list(tmp_path.glob("*.parts"))


def test_encoders_are_put_into_evaluation_mode(tmp_path: Path):
    model, images, clip, _ = towers(tmp_path)
    model.image_encoder = nn.Sequential(clip, nn.Dropout(0.5))
    files = [
        encode_features(tmp_path / f"{mode}.safetensors", model.train(mode), images, preprocess)
        for mode in (True, False)
    ]
    first, second = map(read_features, files)
    assert torch.equal(first.clip, second.clip) and bool(first.clip.all(-1).any())
