"""Mixes of one's own: source images, several data sets, stored corruptions, bad input."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.streams import CLEAN, Dataset, Domain, Segment, mix, open_stream, stream_dataset

from .mixing import NAMES, make, pictures, rows

# -- the source ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_source_has_its_share(share: float):
    stream = make(pictures(400), "potpourri+", size=100, source_share=share, held_out=0.1)
    *others, source = stream.composition().images
    assert others == [100] * 4
    assert source == round(share / (1 - share) * 400)
    assert stream.source == CLEAN and stream.domains[-1] == CLEAN


def test_too_few_source_images_come_again_and_it_is_told(photos: Dataset, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        stream = make(photos, "potpourri+", source_share=0.5, held_out=0.0)
    assert "they come again" in caplog.text
    counts = Counter(index for domain, index in rows(stream) if domain == 4)
    assert set(counts.values()) == {4} and len(counts) == 40


def test_no_source_in_the_stream_leaves_the_held_out_images(photos: Dataset):
    stream = make(photos, "potpourri+", source_share=0, held_out=0.25)
    assert stream.composition().images == (40, 40, 40, 40, 0)
    assert sum(len(b.images) for b in stream.held_out()) == 10


@pytest.mark.parametrize(
    ("size", "held_out", "expected"), [(None, None, 4), (None, 0.5, 20), (10, None, 10), (30, 0.5, 15)]
)
def test_held_out_images_are_in_no_batch_of_the_source(photos: Dataset, size, held_out, expected: int):
    """Images that no domain shows come first; only where there are too few, the source gives some up."""
    stream = make(photos, "potpourri+", size=size, held_out=held_out)
    probe = torch.cat([b.index for b in stream.held_out()]).tolist()
    shown = {index for domain, index in rows(stream) if domain == 4}
    corrupted = {index for domain, index in rows(stream) if domain == 0}
    assert len(set(probe)) == len(probe) == expected and not shown & set(probe)
    fresh = 40 - len(corrupted)
    assert len(set(probe) - corrupted) == min(fresh, expected)
    for batch in stream.held_out():
        assert torch.equal(batch.images, torch.as_tensor(photos.images)[batch.index].float() / 255)
        assert batch.domains.unique().tolist() == [4]


@pytest.mark.parametrize(("size", "held_out"), [(10, None), (30, 0.5), (None, 0.5)])
def test_positions_are_those_shown_and_those_held_out(photos: Dataset, size: int | None, held_out: float | None):
    """Whoever keeps away from them has seen neither the stream nor the images that measure forgetting."""
    stream = make(photos, "potpourri+", size=size, held_out=held_out)
    shown = {index for _, index in rows(stream)}
    probe = {int(index) for batch in stream.held_out() for index in batch.index}
    assert probe
    assert set(stream.positions("photos", "test").tolist()) == shown | probe
    assert not len(stream.positions("photos", "train")) and not len(stream.positions("others", "test"))


# -- own recipes -----------------------------------------------------------------------------------------


def test_domains_of_several_data_sets_with_label_maps():
    first, second = pictures(20), replace(pictures(12, 1, "sketches"), classes=("d", "c", "b", "a"))
    stream = mix(
        [
            Domain("clean", first, is_source=True),
            Domain("fog", first, Segment("fog", 2)),
            Domain("sketch", second, labels=torch.tensor([3, 2, 1, 0])),
        ],
        batch_size=8,
        held_out=0,
    )
    assert stream.domains == (Segment("fog", 2), Segment("sketch", 0), Segment("clean", 0))
    assert stream.classes == first.classes
    for batch in stream:
        sketches = batch.domains == 1
        assert (batch.index[sketches] >= 20).all() and (batch.index[~sketches] < 20).all()
        own = batch.index[sketches] - 20
        assert batch.labels[sketches].tolist() == (3 - second.labels[own]).tolist()
        assert torch.equal(batch.images[sketches], torch.as_tensor(second.images)[own].float() / 255)
    assert stream.composition().images == (20, 12, 20)


def test_a_small_domain_gives_what_it_has(photos: Dataset):
    stream = mix([Domain("fog", photos, Segment("fog", 5)), Domain("few", pictures(6, 2))], size=20)
    assert stream.composition().images == (20, 6)


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "options", "message"),
    [
        ("cross-mix", {"batch_size": 3}, r"batch_size is 3, but every batch of a cross-mix holds all 4 domains"),
        ("alternating", {"batch_size": 161}, "160 images in all, and batch_size is 161"),
        ("mixed", {"concentration": 0.1}, "concentration=0.1 is for the order 'correlated' or 'moving', not for"),
        ("correlated", {"concentration": 0.0}, "concentration is 0.0; expected above 0"),
        ("correlated", {"concentration": float("inf")}, "concentration is inf"),
        ("potpourri+", {"source_share": 1.0}, "source_share is 1.0; expected a share from 0 to below 1"),
        ("potpourri+", {"source_share": -0.1}, "source_share is -0.1"),
        ("potpourri+", {"held_out": 1.5}, "held_out is 1.5"),
        ("mixed", {"source_share": 0.1}, "source_share=0.1, but no domain is marked as the source"),
        ("continual", {"source_share": 0.1}, "of streams in which domains mix, not of 'continual'"),
        ("mixed", {"order": "stored"}, "order='stored' is of streams with one domain at a time"),
        ("mixed", {"size": 41}, "size is 41; expected 1 to 40"),
        ("mixed", {"batch_size": 0}, "batch_size is 0"),
        ("mixd", {}, "no setting 'mixd'. Did you mean 'mixed'"),
    ],
)
def test_bad_options_are_refused(photos: Dataset, setting: str, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        stream_dataset(photos, setting, **{"corruptions": NAMES, "batch_size": 10, **options})


def test_bad_recipes_are_refused(photos: Dataset):
    fog = Domain("fog", photos, Segment("fog", 5))
    small = Dataset(
        "small", torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), photos.classes
    )
    cases = [
        ([], {}, "no domains to mix"),
        ([fog, fog], {}, "Several domains of 'mixed' are named fog"),
        ([fog, Domain("small", small)], {}, r"'small' are \[3, 8, 8\], those of 'fog' \[3, 32, 32\]"),
        ([fog, Domain("b", replace(photos, classes=("w", "x", "y", "z")))], {}, "Give the domain a label map"),
        ([fog, Domain("b", photos, labels=torch.tensor([0, 1, 2, 9]))], {}, "leads to the classes 0 to 9"),
        ([replace(fog, is_source=True), Domain("b", photos, is_source=True)], {}, "2 domains are marked as the source"),
        ([fog], {"order": "blend"}, "no order 'blend' of a mix"),
        ([fog], {"seed": -1}, "seed is -1"),
        ([fog], {"size": 0}, "size is 0"),
        ([fog], {"published": [1, 2]}, "2 numbers for 1 domains"),
    ]
    for domains, options, message in cases:
        with pytest.raises(ValueError, match=message):
            mix(domains, **options)
    with pytest.raises(ValueError, match=r"label map of the domain 'b' is torch.int64 \[2\]"):
        Domain("b", photos, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="has no name"):
        Domain("", photos)


def test_stored_corruptions_mix_but_have_no_source(tmp_path: Path):
    from acclimate.streams import CORRUPTIONS

    draw = np.random.default_rng(0)
    for name in CORRUPTIONS:
        np.save(tmp_path / f"{name}.npy", draw.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.tile(np.arange(6), 5))
    stream = open_stream(f"cifar10c:{tmp_path}:mixed", batch_size=20)
    assert stream.composition().images == (6,) * 15
    fog = np.load(tmp_path / "fog.npy")[24:]
    for batch in stream:
        for domain, index, image in zip(batch.domains, batch.index, batch.images, strict=True):
            if stream.domains[int(domain)].name == "fog":
                assert torch.equal(image, torch.from_numpy(fog[int(index)]).permute(2, 0, 1).float() / 255)
    with pytest.raises(ValueError, match="stored corrupted and has no clean images"):
        open_stream(f"cifar10c:{tmp_path}:potpourri+")
