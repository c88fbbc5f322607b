"""Views: what one draw shares, what it must not touch, and the ranges it draws from."""

from __future__ import annotations

import pytest
import torch

from acclimate.parts import views
from acclimate.parts.views import Views


def images(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_identical_images_stay_identical_up_to_the_noise():
    x = images(1).expand(8, -1, -1, -1)
    y = Views()(x, torch.Generator().manual_seed(1))
    assert 0 < float((y - y.mean(0)).std()) < 0.006
    assert float((y - y.mean(0)).abs().max()) < 0.05


def test_per_sample_views_differ():
    x = images(1).expand(8, -1, -1, -1)
    y = Views(per_sample=True)(x, torch.Generator().manual_seed(1))
    assert float((y[0] - y[1]).abs().mean()) > 0.02


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (3, 3, 12, 20), (4, 1, 16, 16), (2, 5, 8, 8)])
def test_stays_in_range_and_shape(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    for seed in range(5):
        y = Views()(x, torch.Generator().manual_seed(seed))
        assert y.shape == x.shape
        assert float(y.min()) >= 0
        assert float(y.max()) <= 1
    assert torch.equal(x, before)


def test_the_generator_is_the_only_source_of_chance():
    state = torch.get_rng_state()
    first = Views()(images(), torch.Generator().manual_seed(3))
    assert torch.equal(first, Views()(images(), torch.Generator().manual_seed(3)))
    assert not torch.equal(first, Views()(images(), torch.Generator().manual_seed(4)))
    assert torch.equal(state, torch.get_rng_state())


def test_half_of_the_views_are_mirrored(monkeypatch):
    """With every other step made the identity, a view is the image or its mirror image."""
    monkeypatch.setattr(views, "jitter", lambda x, kind, amount: x)
    monkeypatch.setattr(views, "_affine", lambda x, *rest: x)
    monkeypatch.setattr(views, "blur", lambda x, sigma: x)
    monkeypatch.setattr(views, "_NOISE", 0.0)
    x, generator = images(1), torch.Generator().manual_seed(0)
    mirrored = 0
    for _ in range(400):
        y = Views()(x, generator)
        assert torch.equal(y, x) or torch.equal(y, x.flip(-1))
        mirrored += int(torch.equal(y, x.flip(-1)))
    assert 150 < mirrored < 250


def test_ranges_over_a_thousand_draws(monkeypatch):
    """Uniform within the published bounds: nothing outside, and both ends nearly reached."""
    seen: dict[str, list[float]] = {}
    monkeypatch.setattr(views, "jitter", lambda x, kind, amount: seen.setdefault(kind, []).append(float(amount)) or x)

    def affine(x, angle, scale, across, down):
        for name, value in (("degrees", angle.rad2deg()), ("scale", scale), ("across", across), ("down", down)):
            seen.setdefault(name, []).append(float(value))
        return x

    monkeypatch.setattr(views, "_affine", affine)
    monkeypatch.setattr(views, "blur", lambda x, sigma: seen.setdefault("sigma", []).append(float(sigma)) or x)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        Views()(torch.full((1, 3, 32, 32), 0.5), generator)
    published = {
        "brightness": (0.6, 1.4),
        "contrast": (0.7, 1.3),
        "saturation": (0.5, 1.5),
        "hue": (-0.06, 0.06),
        "gamma": (0.7, 1.3),
        "degrees": (-15, 15),
        "scale": (0.9, 1.1),
        "sigma": (0.001, 0.5),
        "across": (-4, 4),
        "down": (-4, 4),
    }
    assert seen.keys() == published.keys()
    for name, (low, high) in published.items():
        slack = 1e-4 * (high - low)
        assert low - slack <= min(seen[name]) <= low + 0.02 * (high - low), name
        assert high - 0.02 * (high - low) <= max(seen[name]) <= high + slack, name
    assert set(seen["across"]) == set(map(float, range(-4, 5)))


def test_identity_parameters_give_the_image_back():
    x, one = images().double(), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    still = views.blur(views._affine(x, 0 * one, one, 0 * one, 0 * one), 1e-3 * one)
    assert torch.allclose(still, x, atol=1e-12)
    shifted = views.blur(views._affine(x, 0 * one, one, 2 * one, 0 * one), 1e-3 * one)
    assert torch.allclose(shifted[..., 2:], x[..., :-2], atol=1e-12)


def test_hue_turns_as_colorsys_does():
    import colorsys

    x = images(2).double()
    turned = views._turn_hue(x, torch.tensor([0.05, -0.03], dtype=torch.float64).view(-1, 1, 1, 1))
    for n, turn in enumerate((0.05, -0.03)):
        for pixel, found in zip(x[n].flatten(1).T, turned[n].flatten(1).T, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel.tolist())
            assert found.tolist() == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=1e-9)


def test_not_images():
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        Views()(torch.rand(4, 8), torch.Generator())


def test_unknown_strength():
    with pytest.raises(ValueError, match="strength"):
        Views(strength="medium")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_views_are_those_of_float32(dtype):
    """At 224 px, where half precision cannot tell neighbouring pixels apart, and the same at each call."""
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide, first, second = (Views()(y, torch.Generator().manual_seed(5)) for y in (x.float(), x, x))
    assert first.dtype == dtype
    assert torch.equal(first, second)
    assert torch.equal(first, wide.to(dtype))
