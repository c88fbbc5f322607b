"""Streams in which domains mix: each order against its definition, draws, images, protocols."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from acclimate.streams import (
    CLEAN,
    MIXED_SETTINGS,
    Batch,
    Dataset,
    Domain,
    MixedStream,
    Segment,
    domain_histogram,
    mix,
    open_stream,
    stream_dataset,
)

from .mixing import NAMES, make, pictures, rows

ONCE = [name for name in MIXED_SETTINGS if name not in ("alternating", "switching")]


@pytest.mark.parametrize("setting", ONCE)
def test_every_image_of_every_domain_comes_once(photos: Dataset, setting: str):
    stream = make(photos, setting, size=None)
    count = Counter(rows(stream))
    held = {int(i) for batch in stream.held_out() for i in batch.index}
    expected = {(domain, i) for domain in range(4) for i in range(40)}
    if setting == "potpourri+":
        assert len(held) == 4
        expected |= {(4, i) for i in range(40) if i not in held}
    assert count == Counter(dict.fromkeys(expected, 1))
    assert len(stream) == sum(1 for _ in stream)


@pytest.mark.parametrize("setting", ["alternating", "switching"])
def test_two_copies_come_in_full_batches(photos: Dataset, setting: str):
    batches = list(make(photos, setting, batch_size=30))
    assert [len(b.images) for b in batches] == [30] * 10
    counts = Counter(rows(make(photos, setting, batch_size=40)))
    assert set(counts.values()) == {2} and len(counts) == 160


def test_alternating_batches_are_of_one_domain_and_of_the_mix_in_turn(photos: Dataset):
    batches = list(make(photos, "alternating", batch_size=20))
    single, mixed = batches[::2], batches[1::2]
    assert [b.domains.unique().tolist() for b in single] == [[0], [0], [1], [1], [2], [2], [3], [3]]
    whole = list(make(photos, "mixed", batch_size=20))
    assert [b.index.tolist() for b in mixed] == [b.index.tolist() for b in whole]
    assert [b.domains.tolist() for b in mixed] == [b.domains.tolist() for b in whole]


def test_switching_has_the_batches_of_alternating_in_another_order(photos: Dataset):
    def contents(setting: str) -> list[tuple]:
        return [(tuple(b.domains.tolist()), tuple(b.index.tolist())) for b in make(photos, setting, batch_size=20)]

    assert contents("switching") != contents("alternating")
    assert Counter(contents("switching")) == Counter(contents("alternating"))


def test_the_published_numbers_of_batches():
    """15 corruptions of 10,000 images in batches of 64: 2,344 mixed ones, and twice 2,343 full ones in turn."""
    images = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(10_000, -1, -1, -1)
    tiny = Dataset("tiny", images, torch.arange(10_000) % 10, tuple("0123456789"))
    assert len(stream_dataset(tiny, "alternating", batch_size=64)) == 4686
    assert len(stream_dataset(tiny, "mixed", batch_size=64)) == 2344
    assert len(stream_dataset(tiny, "cross-mix", batch_size=200)) == 750


@pytest.mark.parametrize("batch_size", [4, 10, 17])
def test_cross_mix_has_equal_shares_to_one_image(photos: Dataset, batch_size: int):
    for counts in domain_histogram(make(photos, "cross-mix", batch_size=batch_size)):
        assert counts.max() - counts.min() <= 1


def test_mixed_batches_are_those_of_a_uniform_shuffle():
    """Shares of domains in batches vary as drawing without replacement does: hypergeometric variance."""
    stream = make(pictures(400), "mixed", batch_size=40)
    counts = domain_histogram(stream).astype(np.float64)
    expected = 40 * 0.25 * 0.75 * (1600 - 40) / (1600 - 1)
    assert counts.mean() == 10
    assert 0.6 * expected < ((counts - 10) ** 2).mean() < 1.5 * expected


@pytest.mark.parametrize("setting", ["mixed", "cross-mix", "correlated", "sorted", "potpourri"])
def test_another_domain_leaves_the_order_of_the_others(photos: Dataset, setting: str):
    few = make(photos, setting, corruptions=NAMES[:3])
    more = make(photos, setting, corruptions=[NAMES[0], "snow", *NAMES[1:3]])
    names = {0: 0, 2: 1, 3: 2}
    kept = [(names[domain], index) for domain, index in rows(more) if domain in names]
    if setting == "mixed":
        assert kept == rows(few)
    for domain in range(3):
        assert [i for d, i in kept if d == domain] == [i for d, i in rows(few) if d == domain]


def test_sorted_domains_come_label_by_label(photos: Dataset):
    stream = make(photos, "sorted")
    assert stream.segments == tuple(Segment(name, 5) for name in NAMES) == stream.domains
    for segment in stream.segments:
        labels = torch.cat([b.labels for b in stream if b.segment == segment]).tolist()
        assert labels == sorted(labels) and len(labels) == 40


def test_dynamic_streams_change_their_domains_piece_by_piece():
    counts = domain_histogram(make(pictures(400), "dynamic", batch_size=20)) > 0
    changes = (counts[1:] != counts[:-1]).any(1)
    sizes = set(counts.sum(1).tolist())
    assert 0.05 < changes.mean() < 0.7, "sets of domains last for several batches, and end"
    assert len(sizes) >= 3


def test_random_batches_differ_in_their_number_of_domains_and_in_shares():
    counts = domain_histogram(make(pictures(400), "random", batch_size=20))
    assert set((counts > 0).sum(1).tolist()) == {1, 2, 3, 4}
    early = counts[: len(counts) // 2]
    assert (early.max(1) > 12).mean() > 0.4, "uneven shares are common, unlike in a shuffle"


@pytest.mark.parametrize("setting", [*ONCE, "alternating"])
def test_images_are_those_of_the_continual_stream(photos: Dataset, setting: str):
    """The same (picture, corruption, seed) is the same image, bit for bit, whatever batch it is in."""
    known: dict[tuple[str, int], torch.Tensor] = {}
    for batch in stream_dataset(photos, "continual", corruptions=NAMES, batch_size=7, seed=3):
        known |= {(batch.segment.name, int(i)): image for i, image in zip(batch.index, batch.images, strict=True)}
    stream = make(photos, setting, seed=3)
    labels = photos.labels
    for batch in stream:
        for domain, index, image, label in zip(batch.domains, batch.index, batch.images, batch.labels, strict=True):
            name = stream.domains[int(domain)].name
            clean = torch.as_tensor(photos.images)[index].float() / 255
            assert torch.equal(image, clean if name == "clean" else known[name, int(index)])
            assert label == labels[index]


@pytest.mark.parametrize("setting", MIXED_SETTINGS)
def test_each_pass_is_the_same_and_each_seed_another(photos: Dataset, setting: str):
    stream = make(photos, setting)
    first = rows(stream)
    for batch in stream:
        batch.index.zero_(), batch.domains.zero_(), batch.images.zero_()
    assert rows(stream) == first == rows(make(photos, setting))
    assert rows(make(photos, setting, seed=1)) != first
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    rows(make(photos, setting)), stream.fingerprint()
    assert before[0] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


@pytest.mark.parametrize("setting", MIXED_SETTINGS)
def test_what_the_rows_say_is_what_comes(photos: Dataset, setting: str):
    stream = make(photos, setting, size=31)
    told = stream.rows()
    batches = list(stream)
    assert told.batches.tolist() == [b.position for b in batches for _ in b.index]
    assert told.domains.tolist() == torch.cat([b.domains for b in batches]).tolist()
    assert told.labels.tolist() == torch.cat([b.labels for b in batches]).tolist()


def test_time_is_one_segment_unless_domains_come_in_turn(photos: Dataset):
    for setting in MIXED_SETTINGS:
        segments = {batch.segment for batch in make(photos, setting)}
        expected = {Segment(n, 5) for n in NAMES} if setting in ("correlated", "sorted") else {Segment(setting, 0)}
        if setting == "moving":
            expected = {Segment(part, 0) for part in ("single", "sorted", "mixed", "correlated")}
        assert segments == expected == set(make(photos, setting).segments)


@pytest.mark.parametrize("setting", MIXED_SETTINGS)
def test_embedded_data_has_every_setting(setting: str):
    stream = open_stream(f"digits:{setting}", size=20)
    assert len(stream.domains) == 15 + (setting == "potpourri+")
    assert stream.name == f"digits:{setting}"


# -- protocol and fingerprint ----------------------------------------------------------------------------


def test_the_protocol_goes_through_json_and_names_every_domain(photos: Dataset):
    protocol = make(photos, "potpourri+", size=20, source_share=0.2, seed=4).protocol()
    assert json.loads(json.dumps(protocol)) == protocol
    assert [domain["name"] for domain in protocol["domains"]] == [*NAMES, "clean"]
    assert [domain["images"] for domain in protocol["domains"]] == [20] * 5
    assert [domain["source"] for domain in protocol["domains"]] == [False] * 4 + [True]
    assert (protocol["setting"], protocol["seed"], protocol["source_share"], protocol["held_out"]) == (
        "potpourri+", 4, 0.2, 20,
    )  # fmt: skip


def test_the_fingerprint_changes_if_and_only_if_something_does(photos: Dataset):
    flipped = torch.as_tensor(photos.images).clone()
    flipped[39, 2, 31, 31] ^= 1
    variants = [
        *(make(photos, setting) for setting in MIXED_SETTINGS),
        make(photos, "mixed", seed=1),
        make(photos, "mixed", severity=4),
        make(photos, "mixed", size=39),
        make(photos, "mixed", batch_size=9),
        make(photos, "mixed", corruptions=NAMES[::-1]),
        make(photos, "mixed", corruptions=NAMES[:3]),
        make(photos, "correlated", concentration=0.5),
        make(photos, "potpourri+", source_share=0.1),
        make(photos, "potpourri+", held_out=0.3),
        make(replace(photos, images=flipped), "mixed"),
        make(replace(photos, labels=photos.labels.roll(1)), "mixed"),
        make(replace(photos, name="others"), "mixed"),
    ]
    prints = [stream.fingerprint() for stream in variants]
    assert len(set(prints)) == len(prints)
    assert make(pictures(), "mixed").fingerprint() == make(photos, "mixed").fingerprint()


def test_a_change_in_any_domain_changes_the_fingerprint():
    def stream(second: Dataset) -> MixedStream:
        return mix([Domain("one", pictures(10)), Domain("two", second)])

    other = pictures(10, 5)
    before = stream(other).fingerprint()
    changed = torch.as_tensor(other.images).clone()
    changed[3] ^= 1
    assert stream(replace(other, images=changed)).fingerprint() != before
    assert stream(pictures(10, 5)).fingerprint() == before


# -- batches -----------------------------------------------------------------------------------------------


def test_batches_of_other_streams_tell_their_domain(photos: Dataset):
    stream = stream_dataset(photos, "gradual-cotta", corruptions=["fog", "snow"], batch_size=30)
    for batch in stream:
        assert {stream.domains[d] for d in batch.domains.tolist()} == {batch.segment}
    assert len(stream.domains) == 10


def test_a_batch_without_domains_has_none():
    batch = Batch(torch.zeros(3, 3, 4, 4), torch.zeros(3), torch.arange(3), CLEAN, 0)
    assert batch.domains.tolist() == [-1, -1, -1] and batch.domains.dtype == torch.int64


def test_a_moving_stream_goes_from_kind_to_kind():
    """Each part against its own definition: domains in turn, labels in order, all domains, labels in few chunks."""
    stream = make(pictures(400), "moving", batch_size=20, seed=2)
    assert [segment.name for segment in stream.segments] == ["single", "sorted", "mixed", "correlated"]
    parts = {
        name: [b for b in stream if b.segment.name == name] for name in ("single", "sorted", "mixed", "correlated")
    }
    assert [len(batches) for batches in parts.values()] == [20, 20, 20, 20]
    order = [batch.segment.name for batch in stream]
    assert order == sorted(order, key=list(parts).index)
    for name in ("single", "sorted", "correlated"):
        assert [b.domains.unique().tolist() for b in parts[name]] == [[domain] for domain in range(4) for _ in range(5)]
    for domain in range(4):
        labels = torch.cat([b.labels for b in parts["sorted"][5 * domain : 5 * domain + 5]]).tolist()
        assert labels == sorted(labels) and len(set(labels)) == 4
    assert all(len(b.domains.unique()) > 2 for b in parts["mixed"])
    kinds = {name: np.mean([len(b.labels.unique()) for b in batches]) for name, batches in parts.items()}
    assert kinds["single"] == kinds["mixed"] == 4 and kinds["sorted"] < 2 and kinds["correlated"] < 3
