"""`corrupt`: what holds for every corruption, whatever it does to the picture."""

import inspect
import itertools

import pytest
import torch
from torch import Tensor

from acclimate.streams.corruptions import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    WEATHER,
    blur,
    corrupt,
    frost_textures,
    jpeg,
    pixelate,
    poisson,
    separable,
)
from acclimate.streams.corruptions.draws import _normal_table  # pyright: ignore[reportPrivateUsage]

ALL = CORRUPTIONS + EXTRA_CORRUPTIONS + WEATHER
SIZES = [(32, 32), (40, 56), (64, 33), (65, 97), (96, 128)]


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth shapes with edges and texture, on 8-bit levels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    fine = torch.rand(count, 3, height, width, generator=generator) * 0.2
    return ((smooth * 0.8 + fine) * 255).round() / 255


def test_names_are_those_of_the_benchmark_in_its_order():
    assert CORRUPTIONS == (
        "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
        "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    )  # fmt: skip
    assert EXTRA_CORRUPTIONS == ("speckle_noise", "gaussian_blur", "spatter", "saturate")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_result_is_an_8_bit_picture_of_the_same_shape(name: str, size: tuple[int, int]):
    images = pictures(2, *size)
    before = images.clone()
    for severity in (1, 4, 5):
        result = corrupt(images, name, severity)
        assert result.shape == images.shape and result.dtype == torch.float32
        assert result.min() >= 0 and result.max() <= 1
        levels = result * 255
        assert (levels - levels.round()).abs().max() < 1e-4
        assert not torch.equal(result, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [(33, 47), (66, 65)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_sample_does_not_see_its_batch(name: str, size: tuple[int, int]):
    images = pictures(7, *size)
    index = torch.tensor([5, 1, 40, 3, 2**40, 0, 9])
    for severity in (1, 3, 5):
        whole = corrupt(images, name, severity, index=index, quantise=False)
        order = torch.tensor([3, 6, 0, 5, 1, 4, 2])
        permuted = corrupt(images[order], name, severity, index=index[order], quantise=False)
        assert torch.equal(permuted, whole[order])
        some = corrupt(images[2:5], name, severity, index=index[2:5].tolist(), quantise=False)
        assert torch.equal(some, whole[2:5])
        alone = corrupt(images[4:5], name, severity, index=[2**40], quantise=False)
        assert torch.equal(alone[0], whole[4])
        with_others = torch.cat((1 - images[:3], images[6:]))
        last = corrupt(with_others, name, severity, index=[0, 1, 2, 9], quantise=False)
        assert torch.equal(last[3], whole[6])


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "fog", "elastic_transform", "snow", "contrast"])
def test_threads_and_chunks_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch):
    images = pictures(40, 50, 41)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = corrupt(images, name, 4, quantise=False)
        torch.set_num_threads(3)
        three = corrupt(images, name, 4, quantise=False)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, three)
    monkeypatch.setattr(inspect.getmodule(inspect.unwrap(corrupt)), "_CPU_CHUNK", 3 * 50 * 41 * 3)
    assert torch.equal(corrupt(images, name, 4, quantise=False), one)


RANDOM = [name for name in ALL if name not in {
    "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate",
}]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_seed_index_and_severity_draw_anew_only_where_there_is_chance(name: str):
    image = pictures(1, 32, 32)
    once = corrupt(image, name, 5)
    assert torch.equal(corrupt(image, name, 5, seed=0, index=torch.tensor([0])), once)
    changed = [corrupt(image, name, 5, seed=s) for s in (1, -1, 2**70 + 5)] + [corrupt(image, name, 5, index=[1])]
    for other in changed:
        assert torch.equal(other, once) == (name not in RANDOM)
    twice = corrupt(image.expand(2, -1, -1, -1), name, 5)
    assert torch.equal(twice[0], twice[1]) == (name not in RANDOM)


@pytest.mark.parametrize("name", ALL)
def test_global_random_state_is_neither_read_nor_changed(name: str):
    images = pictures(2, 32, 32)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = corrupt(images, name, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(corrupt(images, name, 3), first)


@pytest.mark.parametrize("name", ALL)
def test_new_tensors_are_made_where_the_images_are(name: str):
    images = pictures(2, 32, 40)
    expected = corrupt(images, name, 5)
    cached = (
        blur.gaussian_matrix, separable.gaussian_matrix, pixelate.box_matrix, frost_textures.frost_textures,
        jpeg._cosines, jpeg._table, poisson._stacked_distributions, poisson._shortcut, _normal_table,
    )  # fmt: skip
    for function in cached:
        function.cache_clear()
    with torch.device("meta"):
        assert torch.equal(corrupt(images, name, 5), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ALL)
def test_on_a_gpu(name: str):
    images = pictures(6, 40, 56)
    here = corrupt(images, name, 4)
    there = corrupt(images.cuda(), name, 4)
    assert there.device.type == "cuda"
    assert (there.cpu() - here).abs().mean() < 1e-4
    alone = corrupt(images[3:4].cuda(), name, 4, index=[3])
    assert torch.equal(alone[0], there[3])


GROWING = [name for name in ALL if name not in {"elastic_transform", "glass_blur", "spatter", "saturate", "frost"}]


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("side", [32, 96])
def test_severity_grows(name: str, side: int):
    images = pictures(24, side, side)
    change = [(corrupt(images, name, severity) - images).abs().mean().item() for severity in range(1, 6)]
    # Neighbouring severities of motion blur and fog differ by less than their chance does, hence the slack.
    assert all(after > 0.95 * before for before, after in itertools.pairwise(change))
    assert change[4] > 1.1 * change[0]


def test_8_bit_input_and_output():
    levels = (pictures(3, 32, 32) * 255).round().to(torch.uint8)
    from_levels = corrupt(levels, "brightness", 2)
    assert torch.equal(from_levels, corrupt(levels.float() / 255, "brightness", 2))
    smooth = corrupt(levels, "gaussian_noise", 2, quantise=False)
    cut = corrupt(levels, "gaussian_noise", 2)
    assert ((smooth - cut) * 255).min() > -0.01 and ((smooth - cut) * 255).max() < 1
    assert len(torch.unique(smooth)) > 1000 > len(torch.unique(cut))


def test_other_types_and_empty_batches():
    images = pictures(2, 32, 32)
    assert torch.equal(corrupt(images.double(), "fog"), corrupt(images, "fog"))
    assert corrupt(images.half(), "fog").dtype == torch.float32
    assert corrupt(images[:0], "snow").shape == (0, 3, 32, 32)
    assert corrupt(images.to(memory_format=torch.channels_last), "fog").equal(corrupt(images, "fog"))
    assert not corrupt(images.requires_grad_(), "fog").requires_grad
