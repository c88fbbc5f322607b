"""What every stream promises: the same at each pass, with a protocol and a fingerprint."""

import importlib
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.streams import Batch, Dataset, DatasetStream, open_stream, stream_dataset
from acclimate.streams.corruptions import corrupt

NAMES = ["gaussian_noise", "fog"]


@pytest.fixture(scope="module")
def photos() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (23, 3, 32, 32), generator=draw, dtype=torch.uint8)
    return Dataset("photos", images, torch.arange(23) % 3, ("a", "b", "c"))


def make(dataset: Dataset, setting: str = "continual", **options: object) -> DatasetStream:
    options = {"corruptions": None if setting == "clean" else NAMES, "batch_size": 10, **options}
    return stream_dataset(dataset, setting, **options)  # pyright: ignore[reportArgumentType]


def same(first: Batch, second: Batch) -> bool:
    return (
        torch.equal(first.images, second.images)
        and torch.equal(first.labels, second.labels)
        and torch.equal(first.index, second.index)
        and (first.segment, first.position) == (second.segment, second.position)
    )


def test_batches(photos: Dataset):
    stream = make(photos)
    batches = list(stream)
    assert len(stream) == len(batches) == 6
    assert [len(b.labels) for b in batches] == [10, 10, 3, 10, 10, 3]
    assert [b.position for b in batches] == list(range(6))
    assert [b.segment.name for b in batches] == ["gaussian_noise"] * 3 + ["fog"] * 3
    for batch in batches:
        assert batch.images.dtype == torch.float32 and batch.labels.dtype == batch.index.dtype == torch.int64
        assert batch.images.min() >= 0 and batch.images.max() <= 1
        assert batch.labels.tolist() == photos.labels[batch.index].tolist()
    assert stream.classes == ("a", "b", "c") and stream.image_shape == (3, 32, 32)


def test_each_segment_is_the_full_set_in_the_same_order(photos: Dataset):
    batches = list(make(photos, "gradual-cotta", corruptions=["fog", "brightness"]))
    orders = [torch.cat([b.index for b in batches[i : i + 3]]).tolist() for i in range(0, 42, 3)]
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0]) == list(range(23)) != orders[0]


def test_images_are_those_of_the_corruption(photos: Dataset):
    images = torch.as_tensor(photos.images)
    for batch in make(photos, seed=3):
        expected = corrupt(images, batch.segment.name, 5, index=torch.arange(23), seed=3)[batch.index]
        assert torch.equal(batch.images, expected)


def test_the_clean_setting_is_the_stored_pixels(photos: Dataset):
    for batch in make(photos, "clean"):
        assert torch.equal(batch.images, torch.as_tensor(photos.images)[batch.index].float() / 255)
        assert (batch.segment.name, batch.segment.severity) == ("clean", 0)


def test_each_pass_is_the_same(photos: Dataset):
    stream = make(photos)
    first = list(stream)
    for batch in stream:
        assert same(batch, first[batch.position])
        batch.index.zero_()
        batch.labels.zero_()
        batch.images.zero_()
    assert all(same(a, b) for a, b in zip(first, stream, strict=True))
    assert all(same(a, b) for a, b in zip(first, make(photos), strict=True))


def test_two_passes_at_once_do_not_disturb_each_other(photos: Dataset):
    stream = make(photos)
    assert all(same(a, b) for a, b in zip(stream, stream, strict=True))


def test_the_global_generators_are_left_alone(photos: Dataset):
    """By all that a stream does; the package that brings the digits draws from `random` once, when it is imported."""
    importlib.import_module("sklearn.datasets")
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    list(make(photos))
    make(photos).fingerprint()
    list(open_stream("digits:continual", size=3, corruptions=["snow", "glass_blur"]))
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_the_subset_is_the_rule_of_the_tables(photos: Dataset):
    expected = np.random.default_rng(0).permutation(23)[:8].tolist()
    stored = make(photos, "clean", size=8, order="stored", seed=5)
    assert torch.cat([b.index for b in stored]).tolist() == expected
    shuffled = torch.cat([b.index for b in make(photos, "clean", size=8, seed=5)]).tolist()
    assert sorted(shuffled) == sorted(expected) and shuffled != expected
    everything = make(photos, "clean", order="stored")
    assert torch.cat([b.index for b in everything]).tolist() == list(range(23))


def test_another_seed_is_another_order_and_another_noise(photos: Dataset):
    first, second = next(iter(make(photos))), next(iter(make(photos, seed=1)))
    assert first.index.tolist() != second.index.tolist()
    stored = [next(iter(make(photos, seed=seed, order="stored"))) for seed in (0, 1)]
    assert stored[0].index.tolist() == stored[1].index.tolist()
    assert not torch.equal(stored[0].images, stored[1].images)


def test_the_protocol_says_it_all(photos: Dataset):
    protocol = make(photos, "gradual", corruptions=["fog"], size=20, seed=4).protocol()
    assert json.loads(json.dumps(protocol)) == {
        "format": 1,
        "dataset": "photos",
        "split": "test",
        "available": 23,
        "size": 20,
        "subset": "numpy.random.default_rng(0).permutation(available)[:size]",
        "setting": "gradual",
        "segments": [["fog", level] for level in (1, 2, 3, 4, 5, 4, 3, 2, 1)],
        "corruptions": "generated",
        "corruption_seed": 4,
        "order": "shuffled_fixed",
        "seed": 4,
        "batch_size": 10,
        "image_shape": [3, 32, 32],
        "classes": ["a", "b", "c"],
        "labels_known": True,
        "normalisation": "inside the model; images are in [0, 1]",
    }
    assert make(photos, "clean").protocol()["corruptions"] == "none"


def test_the_fingerprint_changes_with_the_protocol(photos: Dataset):
    variants = [
        make(photos),
        make(photos, seed=1),
        make(photos, severity=4),
        make(photos, order="stored"),
        make(photos, size=22),
        make(photos, size=23),
        make(photos, batch_size=9),
        make(photos, corruptions=NAMES[::-1]),
        make(photos, "gradual"),
        make(photos, "clean"),
        make(replace(photos, name="pictures")),
        make(replace(photos, split="train")),
        make(replace(photos, classes=("a", "b", "d"))),
    ]
    found = [stream.fingerprint() for stream in variants]
    assert len(set(found)) == len(found)
    assert all(len(f) == 64 and int(f, 16) for f in found)


def test_the_fingerprint_changes_with_the_data(photos: Dataset):
    images = torch.as_tensor(photos.images)
    flipped = images.clone()
    flipped[22, 2, 31, 31] ^= 1
    relabelled = photos.labels.roll(1)
    before = make(photos).fingerprint()
    assert make(replace(photos, images=images.clone(), labels=photos.labels.clone())).fingerprint() == before
    assert make(replace(photos, images=flipped)).fingerprint() != before
    assert make(replace(photos, labels=relabelled)).fingerprint() != before


def test_images_out_of_use_do_not_change_the_fingerprint(photos: Dataset):
    unused = int(np.random.default_rng(0).permutation(23)[20])
    images = torch.as_tensor(photos.images).clone()
    images[unused] ^= 1
    changed = replace(photos, images=images)
    assert make(photos, size=20).fingerprint() == make(changed, size=20).fingerprint()


def test_the_fingerprint_of_a_path_is_that_of_its_data(tmp_path: Path):
    raw = np.random.default_rng(0).integers(0, 10, (3, 3073), dtype=np.uint8)
    prints = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        raw.tofile(tmp_path / place / "test_batch.bin")
        prints.append(open_stream(f"cifar10:{tmp_path / place}").fingerprint())
    assert prints[0] == prints[1]


def test_known_fingerprints():
    """Recorded values: a change here means that published results name another stream."""
    assert open_stream("digits:clean", size=50).fingerprint()[:16] == "9e77318705549e19"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; expected 1 to 23"),
        ({"size": 24}, "size is 24; expected 1 to 23, the images of 'photos'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"order": "shuffled"}, "no order 'shuffled'. Did you mean 'shuffled_fixed'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options_are_refused(photos: Dataset, options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        make(photos, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 32, 32, dtype=torch.uint8)}, r"expected \[N, 3, H, W\]"),
        ({"images": torch.zeros(23, 1, 32, 32, dtype=torch.uint8)}, r"shape \(23, 1, 32, 32\)"),
        ({"images": torch.zeros(23, 3, 32, 32)}, r"are torch.float32; .*round\(\)\.to\(torch\.uint8\)"),
        ({"labels": torch.zeros(22, dtype=torch.int64)}, r"expected torch.int64 \[23\]"),
        ({"labels": torch.zeros(23)}, "labels of 'photos' are torch.float32"),
        ({"labels": torch.full((23,), 3)}, "reach from 3 to 3, but it names 3 classes"),
        ({"labels": torch.full((23,), -1)}, "reach from -1"),
    ],
)
def test_bad_data_sets_are_refused(photos: Dataset, change: dict[str, torch.Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        replace(photos, **change)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("count", "batch_size", "setting", "steps", "last"),
    [
        (10_000, 200, "continual", 750, 200),
        (10_000, 200, "gradual", 6_750, 200),
        (5_000, 64, "continual", 1_185, 8),
        (5_000, 64, "gradual", 10_665, 8),
    ],
)
def test_steps_of_the_published_protocols(count: int, batch_size: int, setting: str, steps: int, last: int):
    images = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(count, -1, -1, -1)
    tiny = Dataset("tiny", images, torch.zeros(count, dtype=torch.int64), ("one",))
    assert len(stream_dataset(tiny, setting, batch_size=batch_size)) == steps
    sizes = [len(batch.labels) for batch in stream_dataset(tiny, "clean", batch_size=batch_size)]
    assert sizes[-1] == last and sum(sizes) == count
