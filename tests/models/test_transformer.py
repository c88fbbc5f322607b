"""The small vision transformer."""

import pytest
import torch
from torch import nn

from acclimate.models import VisionTransformer, small_vit


def test_size_and_norms():
    model = small_vit()
    assert 80_000 < sum(p.numel() for p in model.parameters()) < 120_000
    assert sum(isinstance(m, nn.LayerNorm) for m in model.modules()) == 7
    assert not any(isinstance(m, nn.BatchNorm2d | nn.Dropout) for m in model.modules())
    assert not model.training


def test_answers_do_not_depend_on_the_neighbours():
    model = small_vit()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(x) for x in images.split(1)])
    assert together.shape == (4, 10)
    assert torch.allclose(together, alone, atol=1e-5)


def test_answers_are_the_same_bits_with_and_without_gradients():
    model, images = small_vit(), torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        plain = model(images)
    assert torch.equal(plain, model(images).detach())


def test_attention_is_softmax_of_scaled_products():
    model = small_vit()
    attention = model.blocks[0].attention
    tokens = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    query, key, value = attention.qkv(tokens).chunk(3, -1)
    heads = []
    for part in range(4):
        at = slice(16 * part, 16 * part + 16)
        weight = (query[..., at] @ key[..., at].transpose(1, 2) / 4).softmax(-1)
        heads.append(weight @ value[..., at])
    assert torch.allclose(attention(tokens), attention.proj(torch.cat(heads, -1)), atol=1e-5)


def test_other_sizes():
    assert small_vit(classes=7, image_size=64)(torch.rand(1, 3, 64, 64)).shape == (1, 7)


def test_weights_are_drawn_by_the_seed_alone():
    before = torch.get_rng_state()
    first, again, other = small_vit(), small_vit(), small_vit(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("options", [{"image_size": 30}, {"image_size": 32, "width": 62}])
def test_sizes_that_do_not_divide_are_refused(options: dict[str, int]):
    with pytest.raises(ValueError, match="multiple of the second"):
        VisionTransformer(10, **options)


def test_a_stem_of_convolutions_sees_neighbouring_patches_and_ends_without_a_kink():
    linear, convolutions = (VisionTransformer(10, 32, stem=stem) for stem in ("linear", "convolutions"))
    assert convolutions(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert linear.embed(torch.rand(1, 3, 32, 32)).shape == convolutions.embed(torch.rand(1, 3, 32, 32)).shape
    image = torch.rand(1, 3, 32, 32)
    other = image.clone()
    other[..., 3, 3] += 1
    moved = [(model.embed(image) - model.embed(other)).abs().sum(1)[0] > 0 for model in (linear, convolutions)]
    assert moved[0].nonzero().tolist() == [[0, 0]]
    assert moved[1].sum() > 1
    assert (convolutions.embed(image) < 0).any()


@pytest.mark.parametrize("options", [{"stem": "magic"}, {"stem": "convolutions", "patch": 1}])
def test_stems_that_cannot_be_made_are_refused(options: dict[str, object]):
    with pytest.raises(ValueError, match="stem="):
        VisionTransformer(10, 32, **options)
