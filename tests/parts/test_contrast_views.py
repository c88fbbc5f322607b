"""Contrastive views: each image by its own draws, with the published odds and ranges."""

from __future__ import annotations

import pytest
import torch

from acclimate.parts import contrast_views
from acclimate.parts.contrast_views import strong_view, weak_view
from acclimate.parts.views import blur, jitter


def images(count: int = 6, channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_weak_views_mirror_half_of_the_images():
    x = images(1).expand(1000, -1, -1, -1)
    y = weak_view(x, generator())
    mirrored = (y == x.flip(-1)).flatten(1).all(1)
    assert bool((mirrored | (y == x).flatten(1).all(1)).all())
    assert 430 < int(mirrored.sum()) < 570


def test_strong_views_of_one_image_differ():
    y = strong_view(images(1).expand(8, -1, -1, -1), generator())
    apart = (y[:, None] - y[None]).abs().amax((2, 3, 4)) + torch.eye(8)
    assert float(apart.min()) > 0.01


def test_an_image_does_not_depend_on_its_company():
    """With draws fixed, row 2 of a batch is the same whatever the other rows are."""
    x, other = images(), images()
    other[[0, 1, 3, 4, 5]] = torch.rand(5, 3, 16, 16, generator=generator(9))
    assert torch.equal(strong_view(x, generator())[2], strong_view(other, generator())[2])


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (3, 3, 4, 20), (5, 1, 8, 8), (2, 5, 2, 2)])
@pytest.mark.parametrize("view", [weak_view, strong_view])
def test_stays_in_range_and_shape(view, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    for seed in range(5):
        y = view(x, generator(seed))
        assert y.shape == x.shape
        assert y.data_ptr() != x.data_ptr()
        assert 0 <= float(y.min()) <= float(y.max()) <= 1
    assert torch.equal(x, before)


def test_the_generator_is_the_only_source_of_chance():
    state = torch.get_rng_state()
    first = strong_view(images(), generator(3))
    assert torch.equal(first, strong_view(images(), generator(3)))
    assert not torch.equal(first, strong_view(images(), generator(4)))
    assert torch.equal(state, torch.get_rng_state())


def test_odds_and_ranges_over_two_thousand_images(monkeypatch):
    """Each change comes with its probability, from the whole of its range; jitters in any order."""
    seen: dict[str, list[float]] = {}
    rounds: list[str] = []

    def note_jitter(x, kind, amount):
        seen.setdefault(kind, []).extend(amount.flatten().tolist())
        rounds.append(kind)
        return x

    def note_blur(x, sigma, radius):
        seen.setdefault("sigma", []).extend(sigma.flatten().tolist())
        return x[..., radius:-radius, radius:-radius]

    def note_grey(x):
        seen.setdefault("grey", []).extend([0.0] * len(x))
        return x[:, :1]

    monkeypatch.setattr(contrast_views, "jitter", note_jitter)
    monkeypatch.setattr(contrast_views, "blur", note_blur)
    monkeypatch.setattr(contrast_views, "grey", note_grey)
    strong_view(images(1, size=4).expand(2000, -1, -1, -1), generator())
    published = {
        "brightness": (0.6, 1.4, 0.8),
        "contrast": (0.6, 1.4, 0.8),
        "saturation": (0.6, 1.4, 0.8),
        "hue": (-0.1, 0.1, 0.8),
        "sigma": (0.1, 2.0, 0.5),
        "grey": (0.0, 0.0, 0.2),
    }
    assert seen.keys() == published.keys()
    for name, (low, high, odds) in published.items():
        slack = 0.01 * (high - low)
        assert low - 1e-6 <= min(seen[name]) <= low + slack, name
        assert high - slack <= max(seen[name]) <= high + 1e-6, name
        assert abs(len(seen[name]) / 2000 - odds) < 0.035, name
    assert len({len(seen[kind]) for kind in ("brightness", "contrast", "saturation", "hue")}) == 1
    assert len(rounds) == 16, "every jitter is somewhere first, second, third and last"


def test_jitter_takes_one_amount_for_each_image():
    x = images(2)
    both = jitter(x, "brightness", torch.tensor([0.7, 1.3]).view(-1, 1, 1, 1))
    assert torch.equal(both, torch.cat([(x[:1] * 0.7).clamp(0, 1), (x[1:] * 1.3).clamp(0, 1)]))


def test_blur_is_a_gaussian():
    """A single bright pixel becomes the kernel, at each image's own sigma."""
    x = torch.zeros(2, 1, 25, 25, dtype=torch.float64)
    x[:, :, 12, 12] = 1
    sigmas = (0.5, 2.0)
    found = blur(x, torch.tensor(sigmas, dtype=torch.float64).view(-1, 1, 1, 1), 6)
    taps = torch.arange(-6, 7, dtype=torch.float64)
    for image, sigma in zip(found, sigmas, strict=True):
        line = torch.exp(-(taps**2) / (2 * sigma**2))
        line = line / line.sum()
        assert torch.allclose(image[0], torch.outer(line, line), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_views_are_those_of_float32(dtype):
    x = images().to(dtype)
    assert torch.equal(strong_view(x, generator()), strong_view(x.float(), generator()).to(dtype))


@pytest.mark.parametrize("view", [weak_view, strong_view])
def test_not_images(view):
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        view(torch.rand(4, 8), torch.Generator())
