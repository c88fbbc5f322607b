"""What masks are learned by: the loss, the variations of pictures, colours."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from acclimate.fields.cells.sam.colours import Colours, colours_of
from acclimate.fields.cells.sam.learning import MaskTraining
from acclimate.fields.cells.sam.loss import dice, mask_loss, parted_loss
from acclimate.fields.cells.sam.variation import stained, turned


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loss_by_hand_in_double_precision() -> None:
    logits = torch.randn(3, 3, 4, 4, generator=seeded())
    masks = torch.randint(3, (3, 16, 16), generator=seeded(1))
    powers = np.exp(logits.double().numpy())
    p = powers / powers.sum(1, keepdims=True)
    true = masks.numpy()[:, ::4, ::4]
    entropy, common = 0.0, np.zeros((3, 3))
    for n, row, column in np.ndindex(true.shape):
        entropy -= np.log(p[n, true[n, row, column], row, column]) / true.size
        for part in range(3):
            t = float(true[n, row, column] == part)
            q = p[n, part, row, column]
            common[part] += [q * t, q * q, t]
    parts = 1 - (2 * common[:, 0] + 1e-5) / (common[:, 1] + common[:, 2] + 1e-5)
    for share in (0.8, 0.0, 1.0):
        found = float(mask_loss(logits, masks, share=share))
        assert np.isclose(found, (1 - share) * entropy + share * parts.mean(), rtol=1e-5)
    sure = 50 * torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2).float()
    assert float(mask_loss(sure, masks)) < 1e-6


def by_hand(p: np.ndarray, true: np.ndarray, share: float) -> float:
    """Of probabilities `[N, P, h, w]` and masks of the same size, in double precision."""
    t = np.moveaxis(np.eye(p.shape[1])[true], -1, 1)
    entropy = -(np.log(p) * t).sum(1).mean()
    over = (0, 2, 3)
    common = (2 * (p * t).sum(over) + 1e-5) / ((p * p).sum(over) + (t * t).sum(over) + 1e-5)
    return (1 - share) * entropy + share * (1 - common).mean()


def test_masks_that_do_not_tell_the_nucleus_ask_for_the_cell_alone() -> None:
    logits = torch.randn(5, 3, 4, 4, generator=seeded())
    masks = torch.randint(3, (5, 4, 4), generator=seeded(1))
    told = torch.tensor([True, False, True, False, True])
    masks[~told] = masks[~told].clamp_max(1)
    powers = np.exp(logits.double().numpy())
    p, true, known = powers / powers.sum(1, keepdims=True), masks.numpy(), told.numpy()
    cell = np.stack([p[:, 0], p[:, 1] + p[:, 2]], 1)
    for share in (0.8, 0.0, 1.0):
        apart = by_hand(p[known], true[known], share), by_hand(cell[~known], true[~known], share)
        found = parted_loss(logits, masks, told, share=share)
        assert np.isclose(float(found), 0.6 * apart[0] + 0.4 * apart[1], rtol=1e-5)
        none = parted_loss(logits, masks.clamp_max(1), torch.zeros(5, dtype=torch.bool), share=share)
        assert np.isclose(float(none), by_hand(cell, true.clip(max=1), share), rtol=1e-5)
        assert torch.equal(parted_loss(logits, masks, ~told | told, share=share), mask_loss(logits, masks, share=share))
    # What such masks are asked for does not depend on how the cell is divided.
    cells = logits[:, 1:].logsumexp(1)
    moved = logits.clone()
    moved[:, 1], moved[:, 2] = cells + np.log(0.25), cells + np.log(0.75)
    kept = torch.where(told[:, None, None, None], logits, moved)
    assert torch.allclose(parted_loss(kept, masks, told), parted_loss(logits, masks, told), atol=1e-6)
    two = torch.randn(5, 2, 4, 4, generator=seeded(2))
    assert torch.equal(parted_loss(two, masks, told), mask_loss(two, masks.clamp_max(1)))


def test_dice_of_masks() -> None:
    one, two = torch.zeros(3, 4, 4, dtype=torch.bool), torch.zeros(3, 4, 4, dtype=torch.bool)
    one[0, :2], two[0, 1:] = True, True
    one[1, 0], two[1, 1] = True, True
    assert torch.allclose(dice(one, two), torch.tensor([2 * 4 / (8 + 12), 0.0, 1.0]))


def test_pictures_are_mirrored_turned_or_left_and_their_masks_with_them() -> None:
    side, count = 32, 800
    picture = torch.rand(3, side, side, generator=seeded()) * 0.8 + 0.2
    mask = torch.randint(1, 3, (side, side), generator=seeded(1))
    picture[0] = mask.float()
    moved, masks = turned(picture.expand(count, -1, -1, -1), mask.expand(count, -1, -1), seeded(2))
    assert torch.equal(moved[:, 0].long(), masks)
    mirrors = [torch.rot90(picture, k, (1, 2)).flip(2) for k in range(4)]
    found = [sum(torch.equal(each, mirror) for each in moved) / count for mirror in mirrors]
    assert all(abs(share - 1 / 8) < 0.05 for share in found)
    same = sum(torch.equal(each, picture) for each in moved) / count
    assert abs(same - 0.25) < 0.05
    rest = [each for each in moved if not any(torch.equal(each, other) for other in (*mirrors, picture))]
    assert abs(len(rest) / count - 0.25) < 0.05
    choices = [ndimage.rotate(picture.numpy(), angle, (1, 2), reshape=False, order=0) for angle in range(-20, 21)]
    shares = np.array([[(each.numpy() == choice).mean() for choice in choices] for each in rest])
    assert shares.max(1).min() > 0.9
    angles = shares.argmax(1) - 20
    assert set(angles) <= set(range(-20, 21)) and len(set(angles)) > 30 and abs(angles.mean()) < 3


def test_draws_are_by_the_generator_alone() -> None:
    images, masks = torch.rand(8, 3, 16, 16), torch.randint(3, (8, 16, 16))
    before = torch.get_rng_state()
    for function in (lambda g: turned(images, masks, g)[0], lambda g: stained(images, 0.5, g)):
        assert torch.equal(function(seeded(3)), function(seeded(3)))
        assert not torch.equal(function(seeded(3)), function(seeded(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_stains_stay_within_bounds() -> None:
    images = torch.rand(64, 3, 8, 8, generator=seeded())
    assert stained(images, 0, seeded()) is images
    for strength in (0.05, 0.5, 1.0):
        found = stained(images, strength, seeded(1))
        assert found.min() >= 0 and found.max() <= 1
        x = images.clamp(1e-4, 1).double()
        low, high = (x ** np.exp(s) * np.exp(-s / 2) for s in (strength, -strength))
        room = strength * (high.amax(1, keepdim=True) - low.amin(1, keepdim=True)) + 1e-6
        assert (found >= (low - room).clamp(0, 1)).all() and (found <= (high + room).clamp(0, 1)).all()
    changes = (stained(images, 0.5, seeded(1)) - images).mean((2, 3))
    assert torch.pdist(changes).min() > 1e-4  # each image by itself


def test_colours_are_means_and_the_mean_of_deviations() -> None:
    images = torch.randint(256, (300, 3, 5, 5), generator=seeded(), dtype=torch.uint8)
    images[0] = 7
    pixels = images.double().numpy() / 255
    found = colours_of(images)
    assert np.allclose(found.mean.flatten(), pixels.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(found.std.flatten(), pixels.std((2, 3)).mean(0), atol=1e-6)
    plain = Colours(torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.1)).standard(torch.ones(1, 3, 2, 2))
    assert torch.allclose(plain, torch.tensor(5.0))
    assert colours_of(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).std.min() > 0


def test_the_learning_rate_rises_and_falls_as_published() -> None:
    training = MaskTraining(epochs=150)
    rates = [training.rate(step, 1500) for step in range(1500)]
    assert np.isclose(rates[0], 1e-6, rtol=1e-12) and rates[99] == max(rates) == 1e-4
    for step in (100, 700, 1499):
        assert np.isclose(rates[step], 1e-4 * 0.5 * (1 + np.cos(np.pi * (step / 10 - 10) / 150)))
    assert 0.005 < rates[-1] / 1e-4 < 0.02
