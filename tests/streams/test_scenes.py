"""Scenes with label maps, streams over them, and rounds of streams."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.streams import DatasetStream, Segment, from_loader, open_stream
from acclimate.streams.camvid import CAMVID_CLASSES, camvid
from acclimate.streams.rounds import RoundsStream
from acclimate.streams.scenes import VOID, LazyMaps, Scenes

CLASSES = ("road", "sky", "car")


def scenes(count: int = 5, kind: torch.dtype = torch.int8) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 40), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, 3, (count, 32, 40), generator=generator).to(kind)
    return Scenes("tiny", images, labels, CLASSES)


def stream(data: Scenes, *segments: Segment, batch_size: int = 2) -> DatasetStream:
    return DatasetStream(
        "tiny", data, order=torch.arange(len(data)), segments=segments, batch_size=batch_size, corruption_seed=0,
        choices={},
    )  # fmt: skip


class FromMemory(LazyMaps):
    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    @property
    def shape(self) -> tuple[int, int, int]:
        count, height, width = self.labels.shape
        return count, height, width

    def read(self, index: Tensor) -> Tensor:
        return self.labels[index].to(torch.int64)


def test_a_batch_carries_label_maps_with_void():
    data = scenes()
    batches = list(stream(data, Segment("clean", 0), Segment("rain", 3)))
    assert [len(batch.images) for batch in batches] == [2, 2, 1] * 2
    for batch in batches:
        assert batch.labels.dtype == torch.int64 and batch.labels.shape == (len(batch.images), 32, 40)
        assert torch.equal(batch.labels, data.labels[batch.index].long())  # pyright: ignore[reportIndexIssue]
    assert VOID == -1 and (batches[0].labels == VOID).any()
    assert torch.equal(batches[0].images, data.read(torch.tensor([0, 1])).float() / 255)
    assert not torch.equal(batches[3].images, batches[0].images)


def test_lazy_maps_give_the_same_stream_and_fingerprint():
    data = scenes()
    assert isinstance(data.labels, Tensor)
    lazy = Scenes("tiny", data.images, FromMemory(data.labels), CLASSES)
    wide = Scenes("tiny", data.images, data.labels.long(), CLASSES)
    first = stream(data, Segment("fog", 2))
    for other in (lazy, wide):
        assert stream(other, Segment("fog", 2)).fingerprint() == first.fingerprint()
        for one, two in zip(first, stream(other, Segment("fog", 2)), strict=True):
            assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)


def test_the_fingerprint_sees_one_pixel_of_a_label_map():
    data = scenes()
    assert isinstance(data.labels, Tensor)
    changed = data.labels.clone()
    changed[3, 7, 9] = (changed[3, 7, 9] + 1) % 3
    other = Scenes("tiny", data.images, changed, CLASSES)
    assert stream(other, Segment("fog", 2)).fingerprint() != stream(data, Segment("fog", 2)).fingerprint()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(5, 32, 39).long(), "one label for each pixel"),
        (torch.zeros(5).long(), "one label for each pixel"),
        (torch.zeros(5, 32, 40), "expected torch.int8 or torch.int64"),
        (torch.full((5, 32, 40), 3), "names 3 classes"),
        (torch.full((5, 32, 40), -2), "-1 is no class"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(labels: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        Scenes("tiny", scenes().images, labels, CLASSES)


def weathers(rounds: int) -> RoundsStream:
    parts = [stream(scenes(), Segment("fog", 1)), stream(scenes(3), Segment("rain", 2))]
    return RoundsStream("tiny:weather", parts, rounds)


def test_rounds_repeat_the_parts_and_count_on():
    chain = weathers(3)
    batches = list(chain)
    assert len(chain) == len(batches) == 3 * (3 + 2)
    assert [batch.position for batch in batches] == list(range(15))
    assert [batch.segment.name for batch in batches[:5]] == ["fog"] * 3 + ["rain"] * 2
    assert [s.name for s in chain.segments] == ["fog", "rain"] * 3
    for batch in batches[5:]:
        assert torch.equal(batch.images, batches[batch.position - 5].images)
    places = [chain.place(position) for position in range(15)]
    assert places == [(r, p) for r in (1, 2, 3) for p in (0, 0, 0, 1, 1)]
    for outside in (-1, 15):
        with pytest.raises(IndexError, match="it has 15"):
            chain.place(outside)


def test_rounds_have_a_protocol_and_a_fingerprint():
    chain = weathers(2)
    assert chain.protocol()["rounds"] == 2
    assert chain.fingerprint() == weathers(2).fingerprint() != weathers(3).fingerprint()
    swapped = RoundsStream("tiny:weather", chain.parts[::-1], 2)
    assert swapped.fingerprint() != chain.fingerprint()
    assert chain.image_shape == (3, 32, 40) and chain.batch_size == 2 and chain.classes == CLASSES


def test_parts_that_do_not_belong_together_are_refused():
    loader = from_loader([(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))], classes=("a", "b"))
    with pytest.raises(ValueError, match="different classes"):
        RoundsStream("odd", [open_stream("digits:clean", size=4), loader])
    with pytest.raises(ValueError, match="no parts"):
        RoundsStream("odd", [])
    with pytest.raises(ValueError, match="rounds is 0"):
        RoundsStream("odd", [loader], 0)


def write_archive(folder: Path, split: str, label: np.ndarray) -> np.ndarray:
    """A tiny archive in CamVid's form; the pixels, one colour an image."""
    pillow = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(1)
    files: list[bytes] = []
    colours = generator.integers(0, 256, (len(label), 3))
    for colour in colours:
        file = BytesIO()
        plain = np.broadcast_to(colour.astype(np.uint8), (*label.shape[1:], 3))
        pillow.fromarray(np.ascontiguousarray(plain)).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    offset = np.cumsum([0, *map(len, files)])
    jpeg = np.frombuffer(b"".join(files), dtype=np.uint8)
    np.savez(folder / f"camvid_{split}.npz", jpeg=jpeg, offset=offset, label=label)
    return colours


@pytest.fixture
def label() -> Iterator[np.ndarray]:
    yield np.random.default_rng(0).integers(0, 12, (3, 36, 48)).astype(np.uint8)


def test_camvid_is_read_and_eleven_becomes_void(tmp_path: Path, label: np.ndarray):
    colours = write_archive(tmp_path, "val", label)
    data = camvid("val", data=tmp_path)
    assert (len(data), data.image_shape, data.split, data.classes) == (3, (3, 36, 48), "val", CAMVID_CLASSES)
    expected = np.where(label == 11, -1, label.astype(np.int64))
    assert data.answers(torch.arange(3)).numpy().tolist() == expected.tolist()
    means = data.read(torch.arange(3)).float().mean((2, 3)).numpy()
    assert np.abs(means - colours).max() < 6


def test_camvid_says_what_is_wrong(tmp_path: Path, label: np.ndarray):
    with pytest.raises(ValueError, match="no split 'all'"):
        camvid("all")
    with pytest.raises(FileNotFoundError, match=r"no camvid_val\.npz"):
        camvid("val", data=tmp_path)
    label[0, 0, 0] = 12
    write_archive(tmp_path, "val", label)
    with pytest.raises(ValueError, match="has the label 12"):
        camvid("val", data=tmp_path)
    (tmp_path / "camvid_val.npz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="not a readable archive"):
        camvid("val", data=tmp_path)


@pytest.mark.real_data
def test_camvid_of_the_shared_folder(shared: Path):
    for split, count in (("train", 367), ("val", 101), ("test", 233)):
        data = camvid(split)
        assert len(data) == count and data.image_shape == (3, 180, 240)
    shares = data.answers(torch.arange(0, 233, 10)).flatten()
    assert shares.min() == VOID and shares.max() == 10
