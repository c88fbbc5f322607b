"""Rain and night: reproducible by sample, growing with severity, and what their formulas say."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.streams import open_stream
from acclimate.streams.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, WEATHER, corrupt
from acclimate.streams.corruptions.draws import Draws
from acclimate.streams.corruptions.night import night
from acclimate.streams.corruptions.rain import rain


def pictures(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round() / 255


def test_weather_is_reached_by_name_and_in_no_list_of_the_benchmark():
    assert WEATHER == ("rain", "night")
    assert not set(WEATHER) & {*CORRUPTIONS, *EXTRA_CORRUPTIONS}
    stream = open_stream("digits:continual", size=4, corruptions=["night", "fog"])
    assert [segment.name for segment in stream.segments] == ["night", "fog"]


@pytest.mark.parametrize("name", WEATHER)
@pytest.mark.parametrize("size", [(32, 32), (40, 57), (96, 128)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_result_is_an_8_bit_picture_that_does_not_see_its_batch(name: str, size: tuple[int, int]):
    images = pictures(6, *size)
    index = torch.tensor([5, 1, 40, 3, 2**40, 0])
    state = torch.get_rng_state()
    for severity in (1, 3, 5):
        whole = corrupt(images, name, severity, index=index, quantise=False)
        assert whole.shape == images.shape and whole.min() >= 0 and whole.max() <= 1
        order = torch.tensor([3, 5, 0, 1, 4, 2])
        assert torch.equal(corrupt(images[order], name, severity, index=index[order], quantise=False), whole[order])
        for place in range(len(images)):
            alone = corrupt(images[place : place + 1], name, severity, index=index[place : place + 1], quantise=False)
            assert torch.equal(alone[0], whole[place])
        levels = corrupt(images, name, severity) * 255
        assert (levels - levels.round()).abs().max() < 1e-4
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", WEATHER)
def test_seed_index_and_severity_draw_anew(name: str):
    image = pictures(1, 40, 40)
    once = corrupt(image, name, 3)
    assert torch.equal(corrupt(image, name, 3), once)
    for other in (corrupt(image, name, 3, seed=1), corrupt(image, name, 3, index=[1]), corrupt(image, name, 4)):
        assert not torch.equal(other, once)


@pytest.mark.parametrize("name", WEATHER)
@pytest.mark.parametrize("side", [32, 120])
def test_severity_grows(name: str, side: int):
    images = pictures(16, side, side)
    change = [(corrupt(images, name, severity) - images).abs().mean().item() for severity in range(1, 6)]
    assert all(after > 1.05 * before for before, after in itertools.pairwise(change))


def test_night_is_its_formula_without_lamps_and_noise():
    """Black draws no noise where shot is all there is; a lamp's light is what remains there."""
    images = pictures(3, 40, 50)
    draws = Draws.keyed(torch.arange(3), 0, "night")
    lamps = night(torch.zeros_like(images), draws, 0.5, 6, 0.0, 0.0).double()
    found = night(images, draws, 0.5, 6, 0.0, 0.0).double()
    x = images.double() ** 1.5
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).double().view(1, 3, 1, 1)).sum(1, keepdim=True)
    y = 0.5 * torch.tensor([0.72, 0.88, 1.2]).double().view(1, 3, 1, 1) * (x + grey) / 2
    assert torch.allclose(found, y + (1 - y) * lamps, atol=2e-6)


def test_lamps_are_warm_few_and_not_on_the_road():
    images = torch.zeros(60, 3, 96, 128)
    light = night(images, Draws.keyed(torch.arange(60), 0, "night"), 0.5, 4, 0.0, 0.0)
    red, green, blue = light.unbind(1)
    assert torch.allclose(green, red * 0.78) and torch.allclose(blue, red * 0.45)
    peaks = red.flatten(1).argmax(1) // 128
    assert peaks.max() <= 72  # none below three quarters of the height
    assert (red.amax((1, 2)) <= 1).all() and (red.amax((1, 2)) > 0.3).all()
    assert red.mean() < 0.05


@pytest.mark.parametrize("grey", [0.2, 0.7])
def test_noise_of_the_night_has_the_stated_variance(grey: float):
    images = torch.full((40, 3, 64, 64), grey)
    draws = Draws.keyed(torch.arange(40), 0, "night")
    still = night(images, draws, 0.6, 4, 0.0, 0.0)
    noise = (night(images, draws, 0.6, 4, 0.004, 0.02) - still).double()
    expected = (still.double() * 0.004 + 0.02**2).mean().item()
    assert noise.mean().item() == pytest.approx(0, abs=3 * math.sqrt(expected / noise.numel()))
    assert noise.square().mean().item() == pytest.approx(expected, rel=0.02)


def test_rain_without_drops_is_a_dull_haze():
    images = pictures(2, 40, 50)
    found = rain(images, Draws.keyed(torch.arange(2), 0, "rain"), 0.0, 0.5, 0.25, 0.8).double()
    mist = torch.tensor([0.58, 0.61, 0.66]).double().view(1, 3, 1, 1)
    assert torch.allclose(found, 0.8 * (0.75 * images.double() + 0.25 * mist), atol=1e-6)


def test_streaks_brighten_up_to_the_strength_and_all_channels_alike():
    dark = torch.zeros(8, 3, 96, 128)
    found = rain(dark, Draws.keyed(torch.arange(8), 0, "rain"), 0.01, 0.6, 0.0, 1.0)
    assert torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 0], found[:, 2])
    assert 0.55 < found.max() <= 0.6 + 1e-6
    assert 0.02 < (found[:, 0] > 0.1).float().mean() < 0.5


def test_streaks_lie_along_the_steep_line_that_was_drawn():
    """Shifted along its streaks a picture is most like itself."""
    draws = Draws.keyed(torch.arange(12), 0, "rain")
    found = rain(torch.zeros(12, 3, 160, 160), draws, 0.004, 1.0, 0.0, 1.0)[:, 0].double().numpy()
    drawn = draws.uniform(0, low=-110.0, high=-70.0)
    for plane, angle in zip(found, drawn.tolist(), strict=True):
        plane = plane - plane.mean()
        likeness: dict[int, float] = {}
        for degrees in range(-180, 0, 5):
            down, right = (round(15 * part(math.radians(degrees))) for part in (math.sin, math.cos))
            likeness[degrees] = float((plane * np.roll(plane, (down, right), (0, 1))).mean())
        assert max(likeness, key=lambda degrees: likeness[degrees]) == pytest.approx(angle, abs=7.5)
