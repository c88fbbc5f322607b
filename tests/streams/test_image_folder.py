"""Image folders on trees written with pillow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acclimate.streams import image_folder, load_dataset, open_stream, stream_dataset


def write(path: Path, size: tuple[int, int] = (224, 224), level: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode == "L" else (level,) * len(mode)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(3):
        write(tmp_path / f"cat/{number}.png", level=10 * number)
        write(tmp_path / f"ant/{number}.png", level=100 + 10 * number)
    (tmp_path / "ant/notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_classes_and_files_are_sorted(tree: Path):
    dataset = load_dataset(f"folder:{tree}")
    assert dataset.classes == ("ant", "cat")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.images.shape == (6, 3, 224, 224)
    levels = dataset.read(torch.arange(6)).float().mean((1, 2, 3))
    assert levels.tolist() == [100, 110, 120, 0, 10, 20]


def test_images_of_the_right_size_are_kept_bit_for_bit(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a/0.png")
    found = load_dataset(f"folder:{tmp_path}").read(torch.tensor([0]))[0]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), pixels)


def test_the_shorter_side_is_resized_and_the_middle_kept(tmp_path: Path):
    wide = np.zeros((128, 512, 3), dtype=np.uint8)
    wide[:, 200:312] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(wide).save(tmp_path / "a/0.png")
    image = load_dataset(f"folder:{tmp_path}").read(torch.tensor([0]))[0]
    assert image.shape == (3, 224, 224)
    # Scaled by 2, the white band of 112 pixels is 224 wide and in the middle.
    assert (image[:, :, 2:-2] == 255).all()
    assert (image_folder(tmp_path, resize=32, crop=32).read(torch.tensor([0]))[0, :, :, :14] < 255).any()


def test_one_image_of_another_size_makes_all_be_resized(tree: Path):
    Image.fromarray(np.arange(224 * 224 * 3, dtype=np.uint32).astype(np.uint8).reshape(224, 224, 3)).save(
        tree / "ant/0.png"
    )
    alone = load_dataset(f"folder:{tree}").read(torch.tensor([0]))
    write(tree / "cat/9.png", (300, 260))
    assert not torch.equal(load_dataset(f"folder:{tree}").read(torch.tensor([0])), alone)
    assert torch.equal(image_folder(tree, resize=None).read(torch.tensor([0])), alone)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str):
    write(tmp_path / "a/0.png", level=77, mode=mode)
    assert load_dataset(f"folder:{tmp_path}").read(torch.tensor([0])).unique().tolist() == [77]


def test_streams_of_folders(tree: Path):
    clean = open_stream(f"folder:{tree}:clean")
    assert clean.batch_size == 64
    (batch,) = clean
    assert batch.images.shape == (6, 3, 224, 224) and batch.images.dtype == torch.float32
    foggy = open_stream(f"folder:{tree}", corruptions=["brightness"], batch_size=4)
    assert [len(b.labels) for b in foggy] == [4, 2]
    assert torch.cat([b.images for b in foggy]).mean() > batch.images.mean()


def test_fingerprints_hash_the_files(tree: Path):
    dataset = image_folder(tree)
    before = stream_dataset(dataset, "clean").fingerprint()
    assert stream_dataset(image_folder(tree), "clean").fingerprint() == before
    assert stream_dataset(image_folder(tree, crop=200), "clean").fingerprint() != before
    write(tree / "cat/0.png", level=1)
    assert stream_dataset(image_folder(tree), "clean").fingerprint() != before


def test_folders_without_images_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(FileNotFoundError, match="0 folders and no images"):
        load_dataset(f"folder:{tmp_path}")
    write(tmp_path / "flat.png")
    with pytest.raises(FileNotFoundError, match="expected <class>/<image>"):
        load_dataset(f"folder:{tmp_path}")


def test_damaged_images_are_named(tree: Path):
    path = tree / "cat/1.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"1\.png is a damaged image"):
        load_dataset(f"folder:{tree}").read(torch.arange(6))
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png is not a readable image"):
        load_dataset(f"folder:{tree}")


def test_impossible_sizes_are_refused(tree: Path):
    with pytest.raises(ValueError, match="resize=100 and crop=200"):
        image_folder(tree, resize=100, crop=200)
    with pytest.raises(ValueError, match="is 224x224; expected at least 300x300"):
        image_folder(tree, resize=None, crop=300).read(torch.tensor([0]))
