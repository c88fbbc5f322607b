"""AugMix and crops: what each operation does, what is drawn, and that images stay images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from acclimate.parts import augmix, crop
from acclimate.parts.augmix import OPERATIONS, AugMix
from acclimate.parts.crop import CROPS, crop_and_flip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 6, size: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(), dtype=torch.float64).to(dtype)


def operated(name: str, x: Tensor, strength: float, sign: int = 1) -> Tensor:
    found = x.clone()
    chosen = torch.full((1, len(x)), OPERATIONS.index(name))
    augmix._operate(found, chosen, torch.full((1, len(x)), strength), torch.full((1, len(x)), sign))
    return found


@pytest.mark.parametrize("shape", [(6, 3, 16, 16), (2, 3, 12, 20), (3, 1, 33, 33), (2, 5, 8, 8)])
@pytest.mark.parametrize("kind", CROPS)
@pytest.mark.parametrize("severity", [1.0, 10.0])
def test_stays_in_range_and_shape(shape, kind, severity):
    x = torch.rand(shape, generator=seeded())
    before = x.clone()
    for seed in range(6):
        y = AugMix(severity=severity)(crop_and_flip(x, kind, seeded(seed)), seeded(seed))
        assert y.shape == x.shape
        assert float(y.min()) >= 0
        assert float(y.max()) <= 1
        assert bool(y.ne(x).flatten(1).any(1).all())
    assert torch.equal(x, before)


def test_the_generator_is_the_only_source_of_chance():
    state = torch.get_rng_state()
    views = [AugMix()(crop_and_flip(images(), "resized", g), g) for g in (seeded(3), seeded(3), seeded(4))]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert torch.equal(state, torch.get_rng_state())


def test_copies_of_one_image_differ():
    x = images(1).expand(8, -1, -1, -1)
    y = AugMix()(x, seeded())
    apart = (y[:, None] - y[None]).abs().mean((2, 3, 4)) + torch.eye(8)
    assert float(apart.min()) > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_float32(dtype):
    x = images(dtype=dtype)
    assert torch.equal(AugMix()(x, seeded(2)), AugMix()(x.float(), seeded(2)).to(dtype))
    for kind in CROPS:
        wide = crop_and_flip(x.float(), kind, seeded(1))
        assert torch.equal(crop_and_flip(x, kind, seeded(1)), wide.to(dtype))


def test_double_precision_stays():
    x = images(dtype=torch.float64)
    for kind in CROPS:
        y = AugMix()(crop_and_flip(x, kind, seeded(1)), seeded(2))
        assert y.dtype == torch.float64


def test_autocast_changes_nothing():
    """Places of pixels computed in bfloat16 would be off by whole pixels."""
    x = images()
    expected = AugMix()(crop_and_flip(x, "resized", seeded(1)), seeded(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(AugMix()(crop_and_flip(x, "resized", seeded(1)), seeded(2)), expected)


def test_the_mixture(monkeypatch):
    """`m x + (1 - m) sum w chain(x)`: with chains that make black images white, the result is 1 - m."""
    drawn: list[Tensor] = []
    monkeypatch.setattr(augmix, "_operate", lambda x, chosen, strength, sign: drawn.append(chosen) or x.fill_(1.0))
    y = AugMix()(torch.zeros(20_000, 1, 1, 1), seeded()).flatten()
    assert float(y.mean()) == pytest.approx(0.5, abs=0.01)  # 1 - m, of a uniform m
    assert float(y.var()) == pytest.approx(1 / 12, abs=0.003)
    (kinds,) = drawn
    lengths = (kinds >= 0).sum(0)
    assert [int((lengths == n).sum()) for n in (1, 2, 3)] == pytest.approx([20_000] * 3, rel=0.03)
    assert bool((kinds >= 0).eq(lengths > torch.arange(3).view(-1, 1)).all())
    counts = kinds[kinds >= 0].bincount(minlength=len(OPERATIONS))
    assert counts.tolist() == pytest.approx([len(kinds[kinds >= 0]) / 9] * 9, rel=0.05)


def test_the_shares_are_a_flat_dirichlet(monkeypatch):
    """One chain of three gives 1 and the others 0: its share has mean 1/3 and variance 1/18."""

    def mark(x, chosen, strength, sign):
        x.zero_()
        x[::3] = 1

    monkeypatch.setattr(augmix, "_operate", mark)
    monkeypatch.setattr(augmix.torch, "lerp", lambda mixed, x, blend: mixed)
    share = AugMix(depth=1)(torch.zeros(20_000, 1, 1, 1), seeded()).flatten()
    assert float(share.mean()) == pytest.approx(1 / 3, abs=0.006)
    assert float(share.var()) == pytest.approx(1 / 18, abs=0.002)


def test_strengths_are_those_of_severity_one(monkeypatch):
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(augmix, "_operate", lambda x, chosen, strength, sign: seen.append((strength, sign)))
    AugMix()(torch.zeros(3000, 1, 1, 1), seeded())
    strength, sign = (drawn.flatten() for drawn in seen[0])
    assert 0.01 <= float(strength.min()) < 0.0101
    assert 0.0999 < float(strength.max()) <= 0.1
    assert set(sign.tolist()) == {-1, 1}
    assert abs(float(sign.float().mean())) < 0.03


# -- the operations, at strengths where they show ------------------------------------------------------------


def test_autocontrast_stretches_each_channel():
    x = images().double() * 0.5 + 0.2
    y = operated("autocontrast", x, 0.1)
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    assert torch.allclose(y, (x - low) / (high - low))
    flat = torch.full((2, 3, 4, 4), 0.3)
    assert torch.equal(operated("autocontrast", flat, 0.1), flat)


def test_posterize_keeps_high_bits():
    x = torch.arange(256).view(1, 1, 16, 16) / 255
    for strength, bits in ((0.1, 4), (0.3, 3), (0.6, 2)):
        y = (operated("posterize", x, strength) * 255).round().long().flatten()
        expected = torch.arange(256) & (256 - 2 ** (8 - bits))
        assert torch.equal(y, expected)


def test_solarize_inverts_the_bright():
    x = torch.arange(256).view(1, 1, 16, 16) / 255
    y = (operated("solarize", x, 0.1) * 255).round().long().flatten()
    assert torch.equal(y, torch.cat([torch.arange(231), 255 - torch.arange(231, 256)]))


def test_equalize_flattens_the_histogram():
    """The table of the usual definition, pixel by pixel, in whole numbers."""
    x = (images(2, 40).pow(3) * 200).round() / 255
    y = operated("equalize", x, 0.1)
    for n in range(2):
        for c in range(3):
            levels = (x[n, c] * 255).round().long().flatten().tolist()
            counts = [levels.count(level) for level in range(256)]
            step = (sum(counts) - counts[max(levels)]) // 255
            table, running = [], step // 2
            for count in counts:
                table.append(min(running // step, 255))
                running += count
            assert (y[n, c] * 255).round().long().flatten().tolist() == [table[level] for level in levels]
    tiny = torch.rand(1, 1, 4, 4, generator=seeded())
    assert torch.allclose(operated("equalize", tiny, 0.1), tiny, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_moves(sign):
    """By whole pixels: a translation by a third of 15 at half strength is 2, a shear of 1/3 moves row 3k+1 by k."""
    x = images(1, 15).double()
    shift = int(0.5 * 15 / 3) * sign
    columns = torch.arange(15) + shift
    inside = (columns >= 0) & (columns < 15)
    expected = torch.zeros_like(x)
    expected[..., inside] = x[..., columns[inside]]
    assert torch.allclose(operated("translate_x", x, 0.5, sign), expected, atol=1e-5)
    assert torch.allclose(operated("translate_y", x.mT, 0.5, sign), expected.mT, atol=1e-5)
    sheared = operated("shear_x", x, 1 / 0.9, sign)
    for row in range(1, 15, 3):  # their centres lie at 1.5, 4.5, ... so at half pixels
        moved = (row + 0.5) / 3 * sign
        low = math.floor(moved)
        padded = torch.nn.functional.pad(x[0, :, row], (20, 20))
        at = torch.arange(15) + 20 + low
        assert torch.allclose(sheared[0, :, row], padded[:, at] * 0.5 + padded[:, at + 1] * 0.5, atol=1e-5)
    assert torch.allclose(operated("shear_y", x.mT, 1 / 0.9, sign), sheared.mT, atol=1e-5)


def test_rotation_by_ninety_degrees():
    x = images(2, 9).double()
    assert torch.allclose(operated("rotate", x, 3.0), x.rot90(1, (2, 3)), atol=1e-5)
    assert torch.allclose(operated("rotate", x, 3.0, -1), x.rot90(-1, (2, 3)), atol=1e-5)


def test_each_image_has_its_own_operations():
    """One after the other, with a strength and a sign of their own; -1 leaves the image as it is."""
    x = images(9, 20)
    found = x.clone()
    chosen = torch.stack([torch.tensor([-1, 0, 1, 2, 3, 4, 5, 7, 8]), torch.tensor([-1, 8, -1, 6, 0, 7, -1, 3, 1])])
    strength = torch.linspace(0.3, 0.9, 18).view(2, 9)
    sign = torch.tensor([[1, -1, -1, 1, 1, -1, 1, -1, -1], [1, 1, -1, -1, 1, 1, 1, -1, 1]])
    augmix._operate(found, chosen, strength, sign)
    for row, image in enumerate(x.split(1)):
        expected = image
        for place in range(2):
            if (number := int(chosen[place, row])) >= 0:
                name, amount = OPERATIONS[number], float(strength[place, row])
                expected = operated(name, expected, amount, int(sign[place, row]))
        assert torch.equal(found[row : row + 1], expected), row


# -- crops ---------------------------------------------------------------------------------------------------


def test_padded_crops_are_shifts_by_up_to_four():
    x = images(1, 12).expand(600, -1, -1, -1)
    found = crop_and_flip(x, "padded", seeded())
    padded = torch.nn.functional.pad(x[:1], (4, 4, 4, 4))
    windows = torch.stack([padded[0, :, a : a + 12, b : b + 12] for a in range(9) for b in range(9)])
    windows = torch.cat([windows, windows.flip(-1)])
    apart = (found[:, None] - windows[None]).abs().amax((2, 3, 4))
    assert float(apart.amin(1).max()) < 1e-4
    which = apart.argmin(1)
    assert len(which.unique()) > 150
    assert abs(int((which >= 81).sum()) - 300) < 4 * math.sqrt(150)


def test_resized_crops_have_the_published_sizes():
    sizes = crop._sizes(4000, 256, 256, seeded())
    area, ratio = sizes.prod(1) / 256**2, sizes[:, 0] / sizes[:, 1]
    assert 0.075 < float(area.min()) < 0.1
    assert 0.95 < float(area.max()) <= 1
    assert 0.74 < float(ratio.min()) < 0.76
    assert 1.31 < float(ratio.max()) < 1.35
    assert float(sizes.max()) <= 256
    wide = crop._sizes(50, 4, 300, seeded())
    whole = (wide == torch.tensor([300, 4])).all(1)
    assert bool((whole | (wide <= torch.tensor([6, 4])).all(1)).all())  # none fits, or one that does
    assert bool(whole.any())


def test_a_resized_crop_is_the_enlarged_part(monkeypatch):
    """A crop of half the sides, sampled at twice the density; and its mirror image."""
    x = images(40, 16).double()
    monkeypatch.setattr(crop, "_sizes", lambda count, *rest: torch.full((count, 2), 8.0))
    found = crop_and_flip(x, "resized", seeded())
    for image, y in zip(x, found, strict=True):
        parts = torch.stack([image[:, a : a + 8, b : b + 8] for a in range(9) for b in range(9)])
        parts = torch.cat([parts, parts.flip(-1)])
        large = torch.nn.functional.interpolate(parts, size=16, mode="bilinear", align_corners=False)
        inner = (large - y)[..., 1:-1, 1:-1].abs().amax((1, 2, 3))  # the rim blends with what lies beyond the crop
        assert float(inner.min()) < 1e-4


def test_no_crop():
    assert torch.equal(crop_and_flip(images(), "none", seeded()), images())


@pytest.mark.parametrize("bad", [{"chains": 0}, {"depth": 0}, {"severity": 11}, {"severity": 0}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must"):
        AugMix(**bad)


def test_not_images():
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        AugMix()(torch.rand(4, 8), seeded())
