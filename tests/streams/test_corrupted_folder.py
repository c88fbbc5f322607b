"""CIFAR-10-C and CIFAR-100-C on folders written in the published layout."""

from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.streams import Segment, load_dataset, open_stream
from acclimate.streams.corruptions import CORRUPTIONS

BLOCK = 6


def write(folder: Path, names: tuple[str, ...] = CORRUPTIONS) -> dict[str, np.ndarray]:
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    arrays = {name: draw.integers(0, 256, (5 * BLOCK, 32, 32, 3), dtype=np.uint8) for name in names}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "labels.npy", np.tile(np.arange(BLOCK, dtype=np.uint8), 5))
    return arrays


def test_segments_are_the_stored_blocks(tmp_path: Path):
    arrays = write(tmp_path)
    stream = open_stream(f"cifar10c:{tmp_path}:gradual", batch_size=4, order="stored")
    assert len(stream) == 135 * 2
    for batch in stream:
        block = arrays[batch.segment.name][(batch.segment.severity - 1) * BLOCK :][batch.index.numpy()]
        assert np.array_equal((batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy(), block)
        assert batch.labels.tolist() == batch.index.tolist()


def test_nothing_is_corrupted_twice(tmp_path: Path):
    write(tmp_path)
    stream = open_stream(f"cifar10c:{tmp_path}")
    assert stream.protocol()["corruptions"] == "stored"
    assert next(iter(stream)).images.mul(255).frac().sum() < 1


def test_the_data_set_counts_pictures(tmp_path: Path):
    write(tmp_path)
    dataset = load_dataset(f"cifar100c:{tmp_path}")
    assert len(dataset) == BLOCK
    assert dataset.images.shape == (15 * 5 * BLOCK, 3, 32, 32)
    assert len(dataset.classes) == 100
    mixed = torch.tensor([5, 0, 3])
    assert dataset.read(mixed, Segment("fog", 2)).shape == (3, 3, 32, 32)


def test_extra_corruptions_are_optional(tmp_path: Path):
    write(tmp_path, (*CORRUPTIONS, "spatter"))
    assert len(open_stream(f"cifar10c:{tmp_path}", corruptions=["spatter"])) == 1
    with pytest.raises(ValueError, match="holds no 'saturate' at severity 5"):
        open_stream(f"cifar10c:{tmp_path}", corruptions=["saturate"])


@pytest.mark.parametrize("name", ["cifar10c", "cifar100c"])
def test_the_folder_may_be_given_apart(tmp_path: Path, name: str):
    write(tmp_path)
    named, given = open_stream(f"{name}:{tmp_path}:continual"), open_stream(f"{name}:continual", data=tmp_path)
    assert given.fingerprint() == named.fingerprint()
    assert (given.batch_size, len(given.segments)) == (200, 15)


def test_there_is_no_clean_setting(tmp_path: Path):
    write(tmp_path)
    with pytest.raises(ValueError, match="stored corrupted and holds no 'clean'"):
        open_stream(f"cifar10c:{tmp_path}:clean")
    with pytest.raises(ValueError, match="only the split 'test'"):
        open_stream(f"cifar10c:{tmp_path}", split="train")


def test_the_fingerprint_sees_every_block_in_use(tmp_path: Path):
    arrays = write(tmp_path)
    before = open_stream(f"cifar10c:{tmp_path}").fingerprint()
    fog = arrays["fog"].copy()
    fog[0] ^= 1
    np.save(tmp_path / "fog.npy", fog)
    assert open_stream(f"cifar10c:{tmp_path}").fingerprint() == before
    fog[4 * BLOCK] ^= 1
    np.save(tmp_path / "fog.npy", fog)
    assert open_stream(f"cifar10c:{tmp_path}").fingerprint() != before


def test_missing_files_are_named(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "fog.npy").unlink()
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 2 of the 16 files of cifar10c: fog\.npy, labels\.npy"):
        load_dataset(f"cifar10c:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_dataset(f"cifar10c:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="needs the unpacked CIFAR-10-C folder"):
        load_dataset("cifar10c")


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("fog", np.zeros((5 * BLOCK, 3, 32, 32), np.uint8), r"expected uint8 \[30, 32, 32, 3\]"),
        ("fog", np.zeros((5 * BLOCK, 32, 32, 3), np.float32), "holds float32; expected whole numbers"),
        ("fog", np.zeros((5 * BLOCK, 32, 32, 3), np.int64), "holds int64"),
        ("fog", np.zeros((4 * BLOCK, 32, 32, 3), np.uint8), "24 images, but labels.npy 30 labels"),
        ("labels", np.arange(5 * BLOCK) % 7, "five blocks of .* differ"),
        ("labels", np.zeros(5 * BLOCK - 1, np.uint8), "five equal blocks"),
        ("labels", np.full(5 * BLOCK, 10), "names 10 classes"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, file: str, array: np.ndarray, message: str):
    write(tmp_path)
    np.save(tmp_path / f"{file}.npy", array)
    with pytest.raises(ValueError, match=message):
        load_dataset(f"cifar10c:{tmp_path}")


def test_damaged_and_pickled_arrays_are_refused(tmp_path: Path):
    write(tmp_path)
    path = tmp_path / "snow.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"snow\.npy is not a readable \.npy array"):
        load_dataset(f"cifar10c:{tmp_path}")
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a readable"):
        load_dataset(f"cifar10c:{tmp_path}")
