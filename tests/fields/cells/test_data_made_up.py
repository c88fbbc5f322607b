"""Cells that nobody photographed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import ConvexHull

from acclimate.fields.cells.data.classes import FOUR
from acclimate.fields.cells.data.made_up import made_up


def test_the_same_seed_gives_the_same_cells_and_leaves_other_draws_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (made_up(9, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name in first:
        assert first[name].fingerprint() == again[name].fingerprint() != other[name].fingerprint()


def test_laboratories_differ_in_colour_and_agree_in_classes() -> None:
    labs = made_up(20, 0, palettes=3, size=48)
    assert list(labs) == ["made-up-1", "made-up-2", "made-up-3"]
    means = torch.stack([lab.images.double().mean((0, 2, 3)) for lab in labs.values()])
    assert torch.pdist(means).min() > 15
    for name, lab in labs.items():
        assert lab.name == name
        assert lab.classes == FOUR
        assert lab.images.shape == (20, 3, 48, 48)
        assert torch.bincount(lab.labels).tolist() == [5] * 4
        assert lab.masked.all()


def test_masks_show_one_whole_cell_with_its_nucleus_inside() -> None:
    for lab in made_up(40, 3).values():
        assert lab.masks is not None
        for mask, label in zip(lab.masks.numpy(), lab.labels.tolist(), strict=True):
            cell, nucleus = mask > 0, mask == 2
            assert ndimage.label(cell)[1] == 1
            assert not cell[[0, -1]].any()
            assert not cell[:, [0, -1]].any()
            assert 0.05 < nucleus.sum() / cell.sum() < 0.8
            around = ndimage.binary_dilation(nucleus) & ~nucleus
            assert (mask[around] == 1).mean() > 0.95
            convex = nucleus.sum() / ConvexHull(np.argwhere(nucleus)).volume
            assert (convex > 0.97) == (FOUR[label] == "lymphocyte")


def test_masks_lie_on_the_colours() -> None:
    for lab in made_up(12, 3).values():
        assert lab.masks is not None
        images = lab.images.double().permute(1, 0, 2, 3)
        background, nucleus = images[:, lab.masks == 0], images[:, lab.masks == 2]
        assert background.std(1).max() < 8
        assert nucleus.std(1).max() < 8
        assert nucleus.mean() < background.mean() - 60


def test_arguments_are_checked() -> None:
    assert len(made_up(1, 0, palettes=1)["made-up-1"]) == 1
    for wrong in ({"count": 0}, {"palettes": 0}, {"size": 8}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            made_up(**{"count": 4, "seed": 0, **wrong})
