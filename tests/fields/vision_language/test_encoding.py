"""Images become files of features, and encoding goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from acclimate.fields.vision_language import (
    LabelledImages,
    VisionLanguage,
    adapt,
    encode_features,
    read_features,
)

from .test_data import preprocess


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
