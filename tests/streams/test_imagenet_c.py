"""ImageNet-C on small trees written in the published layout."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from acclimate.streams import Dataset, LazyImages, Segment, load_dataset, open_stream, stream_dataset
from acclimate.streams.ahead import made_ahead
from acclimate.streams.corruptions import CORRUPTIONS

WNIDS = ("n01440764", "n01443537", "n02105855")
PLACES = {("gaussian_noise", 5): "", ("fog", 5): "", ("fog", 1): "", ("contrast", 5): "digital"}


def pixels(name: str, severity: int, number: int) -> np.ndarray:
    draw = np.random.default_rng([sum(name.encode()), severity, number])
    return draw.integers(0, 256, (224, 224, 3), dtype=np.uint8)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three classes of two images; written as PNG under the published suffix, so that bits can be compared."""
    for (name, severity), group in PLACES.items():
        for number in range(6):
            folder = tmp_path / group / name / str(severity) / WNIDS[number // 2]
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"ILSVRC2012_val_{number:08}.JPEG").open("wb") as file:
                Image.fromarray(pixels(name, severity, number)).save(file, "PNG")
        (folder / "notes.txt").write_text("no image")
    return tmp_path


def bytes_of(images: Tensor) -> np.ndarray:
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy()


def test_images_are_those_of_the_segment_and_labels_the_sorted_classes(tree: Path):
    stream = open_stream(f"imagenetc:{tree}", corruptions=["fog", "gaussian_noise", "contrast"], batch_size=4)
    batches = list(stream)
    assert stream.classes == WNIDS
    assert [len(batch.labels) for batch in batches] == [4, 2] * 3
    assert [batch.position for batch in batches] == list(range(6))
    for batch in batches:
        assert batch.images.dtype == torch.float32 and batch.labels.tolist() == (batch.index // 2).tolist()
        for image, number in zip(bytes_of(batch.images), batch.index.tolist(), strict=True):
            assert np.array_equal(image, pixels(batch.segment.name, 5, number))
    assert all(torch.equal(batches[0].index, batch.index) for batch in batches[::2])
    assert stream.protocol()["corruptions"] == "stored"


def test_jpeg_files_are_decoded(tree: Path):
    path = tree / "fog/5" / WNIDS[0] / "ILSVRC2012_val_00000000.JPEG"
    Image.new("L", (224, 224), 77).save(path)
    assert load_dataset(f"imagenetc:{tree}").read(torch.tensor([0]), Segment("fog", 5)).unique().tolist() == [77]


def test_severities_and_corruptions_that_are_not_there_are_named(tree: Path):
    assert len(open_stream("imagenetc", data=tree, severity=1, corruptions=["fog"])) == 1
    message = (
        r"holds no 'contrast' at severity 1\. It holds severities 5 of: contrast, gaussian_noise; severities 1 5 of"
    )
    with pytest.raises(ValueError, match=message):
        open_stream("imagenetc", data=tree, severity=1, corruptions=["fog", "contrast"])
    with pytest.raises(ValueError, match="holds no 'shot_noise' at severity 5"):
        open_stream("imagenetc", data=tree)
    with pytest.raises(ValueError, match="holds no 'clean'"):
        open_stream(f"imagenetc:{tree}:clean")


@pytest.mark.parametrize("name", ["images.txt", "imagenet_test_image_ids.txt"])
def test_a_list_decides_which_images_are_taken(tree: Path, name: str):
    chosen = [f"val/{WNIDS[2]}/ILSVRC2012_val_00000005.JPEG", f"{WNIDS[0]}/ILSVRC2012_val_00000001.JPEG"]
    (tree / name).write_text("\n".join(chosen) + "\n\n")
    (batch,) = open_stream(f"imagenetc:{tree}", corruptions=["fog"], order="stored")
    assert batch.labels.tolist() == [2, 0]
    assert np.array_equal(bytes_of(batch.images), np.stack([pixels("fog", 5, 5), pixels("fog", 5, 1)]))
    assert batch.images.shape == (2, 3, 224, 224)


def test_classes_without_a_listed_image_still_count(tree: Path):
    (tree / "images.txt").write_text(f"{WNIDS[2]}/ILSVRC2012_val_00000005.JPEG")
    assert load_dataset(f"imagenetc:{tree}").classes == WNIDS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n99999999/a.JPEG", "lists 'n99999999/a.JPEG', which is in none of the 3 class folders"),
        (f"{WNIDS[0]}", "which is in none"),
        ("", "lists 0 images"),
        (f"{WNIDS[0]}/a.JPEG\n{WNIDS[0]}/a.JPEG", "lists 2 images, 1 of them different"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tree: Path, text: str, message: str):
    (tree / "images.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_dataset(f"imagenetc:{tree}")


def test_missing_damaged_and_resized_images_are_named(tree: Path):
    path = tree / "fog/5" / WNIDS[1] / "ILSVRC2012_val_00000002.JPEG"
    whole = path.read_bytes()

    def stream() -> list[Tensor]:
        return [batch.images for batch in open_stream(f"imagenetc:{tree}", corruptions=["fog"])]

    path.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"00000002\.JPEG is a damaged image"):
        stream()
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"00000002\.JPEG is not a readable image"):
        stream()
    Image.new("RGB", (256, 224)).save(path)
    with pytest.raises(ValueError, match=r"00000002\.JPEG is 256x224; expected 224x224"):
        stream()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no image .*00000002\.JPEG, but other corruptions"):
        stream()
    with pytest.raises(FileNotFoundError, match=r"no image .*00000002\.JPEG, but other corruptions"):
        open_stream(f"imagenetc:{tree}", corruptions=["fog"]).fingerprint()


def test_folders_that_are_something_else_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="holds none of the corruptions of ImageNet-C"):
        load_dataset(f"imagenetc:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_dataset(f"imagenetc:{tmp_path / 'x'}")
    with pytest.raises(ValueError, match="needs the unpacked ImageNet-C folder"):
        load_dataset("imagenetc")
    (tmp_path / "fog/5/n01440764").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="has 1 class folders and no images"):
        load_dataset(f"imagenetc:{tmp_path}")
    with pytest.raises(ValueError, match="only the split 'test'"):
        load_dataset(f"imagenetc:{tmp_path}", "train")


def test_the_fingerprint_is_of_the_files_and_not_of_the_place(tree: Path, tmp_path_factory: pytest.TempPathFactory):
    def fingerprint(root: Path) -> str:
        return open_stream(f"imagenetc:{root}", corruptions=["fog"]).fingerprint()

    before = fingerprint(tree)
    moved = tree.rename(tmp_path_factory.mktemp("other") / "moved")
    assert fingerprint(moved) == before
    Image.new("RGB", (224, 224)).save(moved / "gaussian_noise/5" / WNIDS[0] / "ILSVRC2012_val_00000000.JPEG")
    assert fingerprint(moved) == before
    Image.new("RGB", (224, 224)).save(moved / "fog/5" / WNIDS[0] / "ILSVRC2012_val_00000000.JPEG")
    assert fingerprint(moved) != before


class Counted(LazyImages):
    """Images whose pixels are their position; knows what was read."""

    def __init__(self, length: int, ahead: int = 0) -> None:
        self.length, self.reads, self.threads = length, 0, set[str]()
        self.ahead = ahead  # pyright: ignore[reportAttributeAccessIssue]
        self.arrived = threading.Semaphore(0)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.length, 3, 8, 8

    def read(self, index: Tensor) -> Tensor:
        self.reads += 1
        self.threads.add(threading.current_thread().name)
        self.arrived.release()
        return index.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()


def published(length: int, ahead: int = 0) -> Dataset:
    """A stand-in as large as the published protocol: all corruptions at severity 5."""
    blocks = {Segment(name, 5): position * length for position, name in enumerate(CORRUPTIONS)}
    images = Counted(15 * length, ahead)
    return Dataset("imagenetc", images, torch.zeros(15 * length, dtype=torch.int64), ("a",), "test", blocks)


def test_the_published_protocol_is_the_default():
    """5,000 of the images, always the same, in 79 batches of 64, the last one of 8."""
    stream = stream_dataset(published(5200))
    sizes = [len(batch.labels) for batch in stream]
    assert sizes == ([64] * 78 + [8]) * 15 and len(stream) == 1185
    assert sorted(stream.order.tolist()) == sorted(np.random.default_rng(0).permutation(5200)[:5000].tolist())
    assert stream.protocol()["size"] == 5000
    assert len(stream_dataset(published(5200), size=5200).order) == 5200
    assert len(stream_dataset(published(40)).order) == 40


def test_the_next_batches_are_read_while_one_is_in_use_and_never_all():
    dataset = published(10, ahead=2)
    images = dataset.images
    assert isinstance(images, Counted)
    stream = stream_dataset(dataset, batch_size=1, order="stored")
    images.reads, images.arrived, images.threads = 0, threading.Semaphore(0), set()
    iterator = iter(stream)
    for position in range(4):
        next(iterator)
        for _ in range(3 if position == 0 else 1):
            assert images.arrived.acquire(timeout=10), "nothing was read ahead"
        assert images.reads == position + 3
    assert isinstance(iterator, Generator)
    iterator.close()
    assert images.reads == 6
    assert threading.current_thread().name not in images.threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("acclimate-ahead")]


def test_reading_ahead_changes_nothing():
    plain, ahead = (list(stream_dataset(published(7, n), batch_size=3, seed=4)) for n in (0, 2))
    assert len(plain) == len(ahead) == 45
    for a, b in zip(plain, ahead, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.index, b.index) and a.segment == b.segment


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_errors_come_in_their_turn(ahead: int):
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    seen: list[int] = []
    with pytest.raises(ValueError, match="two"):
        for _, value in made_ahead(make, range(5), ahead):
            seen.append(value)
    assert seen == [0, 1]
