"""CIFAR from JPEG archives and from the ordinary binary files."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.streams import load_dataset, open_stream


def records(count: int, label_bytes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels `[count, label_bytes]`, pixels `[count, 3, 32, 32]`, and both as the published bytes."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 10, (count, label_bytes), dtype=np.uint8)
    pixels = draw.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return labels, pixels, np.concatenate([labels, pixels.reshape(count, -1)], 1)


def write_cifar10(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True)
    parts = [records(4, 1, seed) for seed in range(5)]
    for number, (_, _, raw) in enumerate(parts, start=1):
        raw.tofile(folder / f"data_batch_{number}.bin")
    records(7, 1, 9)[2].tofile(folder / "test_batch.bin")
    return np.concatenate([p[0][:, 0] for p in parts]), np.concatenate([p[1] for p in parts])


def write_archive(path: Path, count: int = 6, **replaced: np.ndarray) -> np.ndarray:
    """An archive of plain grey images, which JPEG keeps exactly; their levels."""
    levels = np.arange(count) * 40
    files = []
    for level in levels:
        buffer = BytesIO()
        Image.new("RGB", (32, 32), (int(level),) * 3).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
        "offset": np.cumsum([0, *map(len, files)]),
        "label": np.arange(count, dtype=np.uint8) % 2,
        "classes": np.array(["day", "night"]),
    }
    np.savez(path, **{**arrays, **replaced})
    return levels


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar10_binary(tmp_path: Path, inner: str):
    labels, pixels = write_cifar10(tmp_path / "data" / inner)
    dataset = load_dataset(f"cifar10:{tmp_path / 'data'}", "train")
    assert dataset.labels.tolist() == labels.tolist()
    assert np.array_equal(torch.as_tensor(dataset.images).numpy(), pixels)
    assert dataset.classes[0] == "airplane" and dataset.classes[9] == "truck"
    assert len(load_dataset("cifar10", "test", data=tmp_path / "data")) == 7


def test_cifar100_binary_uses_the_fine_label(tmp_path: Path):
    labels, pixels, raw = records(5, 2, 0)
    raw.tofile(tmp_path / "test.bin")
    dataset = load_dataset(f"cifar100:{tmp_path}", "test")
    assert dataset.labels.tolist() == labels[:, 1].tolist()
    assert np.array_equal(torch.as_tensor(dataset.images).numpy(), pixels)
    assert len(dataset.classes) == len(set(dataset.classes)) == 100
    assert list(dataset.classes) == sorted(dataset.classes)


def test_a_truncated_binary_file_is_refused(tmp_path: Path):
    (tmp_path / "test_batch.bin").write_bytes(records(2, 1, 0)[2].tobytes()[:-1])
    with pytest.raises(ValueError, match=r"6,145 bytes; expected a whole number of records of 3,073 bytes"):
        load_dataset(f"cifar10:{tmp_path}", "test")


def test_an_empty_binary_file_is_refused(tmp_path: Path):
    (tmp_path / "test_batch.bin").touch()
    with pytest.raises(ValueError, match="has 0 bytes"):
        load_dataset(f"cifar10:{tmp_path}", "test")


def test_missing_parts_are_named(tmp_path: Path):
    write_cifar10(tmp_path / "data")
    (tmp_path / "data/data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks data_batch_4\.bin"):
        load_dataset(f"cifar10:{tmp_path / 'data'}", "train")
    with pytest.raises(FileNotFoundError, match=r"no test\.bin .*cifar-100-binary"):
        load_dataset(f"cifar100:{tmp_path / 'data'}", "test")


def test_the_python_version_is_refused(tmp_path: Path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"pickle.*cifar-10-binary\.tar\.gz"):
        load_dataset(f"cifar10:{tmp_path}", "train")


def test_labels_out_of_range_are_refused(tmp_path: Path):
    raw = records(2, 1, 0)[2]
    raw[1, 0] = 10
    raw.tofile(tmp_path / "test_batch.bin")
    with pytest.raises(ValueError, match=r"reach from . to 10, but it names 10 classes"):
        load_dataset(f"cifar10:{tmp_path}", "test")


def test_archive_of_jpeg_images(tmp_path: Path):
    levels = write_archive(tmp_path / "cifar10_test.npz")
    dataset = load_dataset(f"cifar10:{tmp_path}", "test")
    assert torch.as_tensor(dataset.images).float().mean((1, 2, 3)).tolist() == levels.tolist()
    assert dataset.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert dataset.classes == ("day", "night")


def test_archives_are_decoded_once(tmp_path: Path):
    write_archive(tmp_path / "cifar10_test.npz")
    first, second = (load_dataset(f"cifar10:{tmp_path}", "test") for _ in range(2))
    assert first.images is second.images


def test_damaged_archives_are_refused(tmp_path: Path):
    path = tmp_path / "cifar10_test.npz"
    write_archive(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable archive"):
        load_dataset(f"cifar10:{tmp_path}", "test")
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"not a readable archive.*expected the arrays jpeg, offset"):
        load_dataset(f"cifar10:{tmp_path}", "test")


def test_archives_with_damaged_content_are_refused(tmp_path: Path):
    path = tmp_path / "cifar10_test.npz"
    write_archive(path, jpeg=np.zeros(5000, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"Image 0 of .* cannot be decoded"):
        load_dataset(f"cifar10:{tmp_path}", "test")
    write_archive(path, offset=np.arange(3))
    with pytest.raises(ValueError, match="3 offsets for 6 labels"):
        load_dataset(f"cifar10:{tmp_path}", "test")


def test_objects_in_archives_are_not_unpickled(tmp_path: Path):
    write_archive(tmp_path / "cifar10_test.npz", classes=np.array(["day", "night"], dtype=object))
    with pytest.raises(ValueError, match="not a readable archive"):
        load_dataset(f"cifar10:{tmp_path}", "test")


def test_a_missing_shared_folder_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCLIMATE_SHARED", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no data/cifar10_test.npz in .*Set ACCLIMATE_SHARED.*cifar10:DIR"):
        open_stream("cifar10:clean")
    monkeypatch.delenv("ACCLIMATE_SHARED")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="the default of ACCLIMATE_SHARED"):
        open_stream("cifar10:clean")


@pytest.mark.real_data
def test_the_shared_archive(shared: Path):
    dataset = load_dataset("cifar10", "test")
    assert len(dataset) == 10_000
    assert dataset.labels.bincount().tolist() == [1000] * 10
    assert dataset.classes == tuple("airplane automobile bird cat deer dog frog horse ship truck".split())  # noqa: SIM905
    with np.load(shared / "data/corruption_reference.npz") as reference:
        index = torch.from_numpy(reference["index"]).long()
        clean = reference["clean"]
        labels = reference["label"]
    found = dataset.read(index)
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), clean) or np.array_equal(found.numpy(), clean)
    assert dataset.labels[index].tolist() == labels.tolist()


@pytest.mark.real_data
def test_the_subset_of_the_tables(shared: Path):
    stream = open_stream("cifar10:clean", size=2000, order="stored")
    seen = torch.cat([batch.index for batch in stream])
    assert seen.tolist() == np.random.default_rng(0).permutation(10_000)[:2000].tolist()
