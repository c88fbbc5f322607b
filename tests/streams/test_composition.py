"""Compositions, recomputed by hand."""

from __future__ import annotations

import json
from math import log

import numpy as np
import pytest
import torch

from acclimate.streams import Composition, RoundsStream, from_loader, open_stream
from acclimate.streams.composition import Rows


def rows(batches, domains, labels) -> Rows:
    return Rows(*(np.array(each, dtype=np.int64) for each in (batches, domains, labels)))


def test_by_hand():
    """Batches: {a a b b | labels 0 0 0 1}, {c c | 2, unknown}: entropies log 2 and 0; of labels 0.5623 and 0."""
    found = Composition.of(rows([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, -1]), ("a", "b", "c"))
    assert found.images == (2, 2, 2) and found.batches == 2 and found.batch_domains == 1.5
    assert found.domain_entropy == pytest.approx(log(2) / 2, abs=1e-4)
    by_hand = -(0.75 * log(0.75) + 0.25 * log(0.25))
    assert found.label_entropy == pytest.approx(by_hand / 2, abs=1e-4)
    assert found.shares == pytest.approx((1 / 3,) * 3)
    assert found.mixed
    assert str(found).startswith("6 images of 3 domains in 2 batches; a batch holds 1.5 of them")


def test_it_goes_through_json():
    found = Composition.of(rows([0, 1], [0, 1], [-1, -1]), ("a", "b"), (5, -1))
    assert found.label_entropy is None and not found.mixed
    assert Composition.read(json.loads(json.dumps(found.json()))) == found


def test_streams_of_one_domain_at_a_time():
    found = open_stream("digits:continual", size=30, batch_size=20, corruptions=["fog", "snow"]).composition()
    assert (found.names, found.images, found.batches) == (("fog", "snow"), (30, 30), 4)
    assert (found.batch_domains, found.domain_entropy) == (1.0, 0.0)
    gradual = open_stream("digits:gradual", size=3, corruptions=["fog"]).composition()
    assert gradual.names == ("fog 1", "fog 2", "fog 3", "fog 4", "fog 5")
    assert gradual.images == (6, 6, 6, 6, 3)


def test_streams_that_only_a_pass_can_tell():
    stream = open_stream("digits:continual", size=10, corruptions=["fog", "snow"])
    twice = RoundsStream("twice", [stream], rounds=2)
    assert twice.rows() is None
    assert twice.composition().images == (20, 20)
    loader = from_loader([(torch.rand(3, 3, 8, 8), torch.tensor([0, 1, -1])), torch.rand(2, 3, 8, 8)])
    assert loader.rows() is None
    assert loader.composition().images == (5,)
    assert loader.rows() is not None
    assert loader.composition().label_entropy == pytest.approx(log(2), abs=1e-4)


def test_an_even_mix_reaches_the_most_entropy():
    found = open_stream("digits:cross-mix", size=20, batch_size=30).composition()
    assert found.domain_entropy == pytest.approx(log(15), abs=1e-4)
    assert found.batch_domains == 15
