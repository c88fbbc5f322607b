"""Lengths of features do not matter: neither do they vanish, nor are they taken for a fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.fields.vision_language import Features, VisionLanguage, adapt, read_features
from acclimate.fields.vision_language.lengths import direction, even
from conformance.tools import assert_same, book

from .world import world

OF = world(2, images=24, views=4)
GIVEN = Features(clip=OF.views, text=OF.texts, auxiliary=OF.auxiliary, logit_scale=OF.scale)


def test_rows_of_any_length_become_one():
    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    plain = rows / rows.norm(dim=1, keepdim=True)
    for power in (-140, -126, -60, 0, 60, 120):
        found = direction(rows.double() * 2.0**power if power < -120 else rows * 2.0**power)
        assert torch.allclose(found, plain, atol=1e-6), power
        assert found.dtype == torch.float32
    least = even(torch.full((1, 2), 1e-44))
    assert least.isfinite().all() and float(least[0, 0]) > 1e-8
    assert not even(torch.zeros(1, 3)).any() and direction(torch.full((1, 2), torch.nan)).isnan().all()
    assert torch.equal(even(rows), even(8 * rows)), "bit for bit"


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**-40, 2.0**24, 2.0**60])
def test_a_file_of_another_length_is_the_same_stream(factor):
    other = replace(GIVEN, clip=factor * GIVEN.clip, auxiliary=factor * OF.auxiliary, text=factor * GIVEN.text)
    adapted, twin = (adapt(each.model(), method="cosmic") for each in (other, GIVEN))
    for ours, theirs in zip(other.batches(batch_size=8), GIVEN.batches(batch_size=8), strict=True):
        found = adapted(ours.images, auxiliary=ours.auxiliary)
        assert_same(found, twin(theirs.images, auxiliary=theirs.auxiliary), "answers")
        assert adapted.last.held == 0 and adapted.last.updated
    assert_same(book(adapted), book(twin), "state")


def test_what_is_kept_is_of_length_one():
    adapted = adapt(None, OF.texts, "tda", logit_scale=OF.scale)
    adapted(1e-25 * OF.views)
    kept = adapted.state["positive.features"].norm(dim=-1)
    assert torch.allclose(kept[kept > 0], torch.ones(()), atol=1e-5) and bool((kept > 0).any())
    tiny = VisionLanguage(None, 1e-30 * OF.texts)
    assert torch.allclose(tiny.text_features.norm(dim=1), torch.ones(()), atol=1e-5)


def test_bytes_may_stand_in_the_other_order(tmp_path: Path):
    arrays = {name: getattr(GIVEN, name).numpy() for name in ("clip", "text", "auxiliary")}
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    np.savez(tmp_path / "big.npz", **swapped, logit_scale=np.array(25.0, dtype=">f8"))
    found = read_features(tmp_path / "big.npz")
    assert torch.equal(found.clip, GIVEN.clip) and found.logit_scale == 25.0
    np.savez(tmp_path / "long.npz", **{**arrays, "clip": arrays["clip"].astype(np.longdouble)}, logit_scale=25.0)
    with pytest.raises(ValueError, match=r"long\.npz has clip of type .*, expected numbers of at most 64 bits"):
        read_features(tmp_path / "long.npz")
