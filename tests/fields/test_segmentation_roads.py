"""Cityscapes and ACDC, read from files made in their layout."""

from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.fields.segmentation import ROAD_CLASSES, VOID, acdc, acdc_stream, cityscapes

pillow = pytest.importorskip("PIL.Image")

SIZE = (40, 64)
TRAINED = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14,
           28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip
"""As published: the id of each class that is trained, and its train id."""


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(values).save(path)


def ids(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 34, size).astype(np.uint8)


def trained(values: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: TRAINED.get(int(value), VOID))(values)


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def city(root: Path, count: int = 4) -> None:
    for number in range(count):
        name = ("bonn", "ulm")[number % 2]
        stem = f"{name}_{number:06d}_000019"
        write(root / "leftImg8bit/val" / name / f"{stem}_leftImg8bit.png", photo(number))
        write(root / "gtFine/val" / name / f"{stem}_gtFine_labelIds.png", ids(number))
        write(root / "gtFine/val" / name / f"{stem}_gtFine_color.png", photo(number))


def weather(root: Path, condition: str, count: int, *, split: str = "train", kind: str = "labelIds") -> None:
    for number in range(count):
        sequence = f"GOPR{number % 2:04d}"
        stem = f"{sequence}_frame_{number:06d}"
        write(root / "rgb_anon" / condition / split / sequence / f"{stem}_rgb_anon.png", photo(number))
        values = ids(number) if kind == "labelIds" else np.where(ids(number) < 19, ids(number), 255).astype(np.uint8)
        write(root / "gt" / condition / split / sequence / f"{stem}_gt_{kind}.png", values)


def test_the_nineteen_classes_in_the_order_of_their_train_ids():
    assert len(ROAD_CLASSES) == 19
    assert [ROAD_CLASSES[n] for n in (0, 1, 10, 11, 12, 18)] == [
        "road",
        "sidewalk",
        "sky",
        "person",
        "rider",
        "bicycle",
    ]


def test_cityscapes_is_read_by_city_and_name(tmp_path: Path):
    city(tmp_path)
    data = cityscapes(tmp_path)
    assert (len(data), data.image_shape, data.classes, data.split) == (4, (3, *SIZE), ROAD_CLASSES, "val")
    order = [0, 2, 1, 3]  # bonn first
    index = torch.arange(4)
    assert np.array_equal(data.read(index).permute(0, 2, 3, 1).numpy(), np.stack([photo(n) for n in order]))
    answers = data.answers(index)
    assert answers.dtype == torch.int64
    assert np.array_equal(answers.numpy(), np.stack([trained(ids(n)) for n in order]))


def test_train_ids_are_preferred_and_255_is_void(tmp_path: Path):
    weather(tmp_path, "fog", 3, kind="labelIds")
    by_ids = acdc(tmp_path, "fog").answers(torch.arange(3))
    weather(tmp_path, "fog", 3, kind="labelTrainIds")
    by_train = acdc(tmp_path, "fog").answers(torch.arange(3))
    order = [0, 2, 1]
    assert np.array_equal(by_ids.numpy(), np.stack([trained(ids(n)) for n in order]))
    expected = np.stack([np.where(ids(n) < 19, ids(n).astype(np.int64), VOID) for n in order])
    assert np.array_equal(by_train.numpy(), expected)


def test_sizes_are_brought_down_and_labels_stay_labels(tmp_path: Path):
    city(tmp_path)
    small = cityscapes(tmp_path, pixels=(20, 32))
    assert small.image_shape == (3, 20, 32)
    index = torch.arange(4)
    means = cityscapes(tmp_path).read(index).float().mean((2, 3)) - small.read(index).float().mean((2, 3))
    assert means.abs().max() < 6
    answers = small.answers(index)
    assert answers.shape == (4, 20, 32) and answers.min() >= VOID and answers.max() < 19


def test_acdc_as_a_stream_of_rounds(tmp_path: Path):
    for condition, count in (("fog", 3), ("night", 2), ("rain", 4), ("snow", 2)):
        weather(tmp_path, condition, count)
    stream = acdc_stream(tmp_path, rounds=2, pixels=(20, 32))
    batches = list(stream)
    assert len(stream) == len(batches) == 2 * (3 + 2 + 4 + 2)
    assert [s.name for s in stream.segments] == ["fog", "night", "rain", "snow"] * 2
    assert all(s.severity == 0 for s in stream.segments)
    assert stream.place(10) == (1, 3) and stream.place(11) == (2, 0)
    plain = acdc(tmp_path, "night", pixels=(20, 32))
    assert torch.equal(batches[3].images, plain.read(torch.tensor([0])).float() / 255)
    assert torch.equal(batches[3].labels, plain.answers(torch.tensor([0])))
    few = acdc_stream(tmp_path, rounds=1, size=2, pixels=(20, 32))
    assert [batch.index.tolist() for batch in few][:2] == [[0], [1]]
    before = stream.fingerprint()
    assert acdc_stream(tmp_path, rounds=2, pixels=(20, 32)).fingerprint() == before
    write(tmp_path / "gt/rain/train/GOPR0000/GOPR0000_frame_000000_gt_labelIds.png", ids(99))
    assert acdc_stream(tmp_path, rounds=2, pixels=(20, 32)).fingerprint() != before


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no photographs"):
        cityscapes(tmp_path)
    city(tmp_path, 1)
    (tmp_path / "gtFine/val/bonn/bonn_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no bonn_000000_000019_gtFine_labelIds\.png"):
        cityscapes(tmp_path)
    with pytest.raises(ValueError, match="no condition 'sun' in ACDC"):
        acdc(tmp_path, "sun")
    with pytest.raises(ValueError, match="pixels is"):
        cityscapes(tmp_path, pixels=(0, 4))


def test_coloured_label_files_are_refused(tmp_path: Path):
    weather(tmp_path, "fog", 1)
    write(tmp_path / "gt/fog/train/GOPR0000/GOPR0000_frame_000000_gt_labelIds.png", photo(0))
    with pytest.raises(ValueError, match="not the coloured ones"):
        acdc(tmp_path, "fog").answers(torch.tensor([0]))
