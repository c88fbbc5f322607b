"""Low-rank adapters, and the segmenter that they are in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from acclimate.fields.cells.sam.low_rank import QueryValue, add_adapters, merged_weight
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import PAPER, UNIT


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adapted(width: int = 12, rank: int = 3) -> QueryValue:
    """With numbers in B, so that the adapters do something."""
    layer = QueryValue(nn.Linear(width, 3 * width), rank)
    layer.up.data = normal(2, width, rank, seed=1)
    return layer


def test_the_formula_by_hand_and_keys_are_left_alone() -> None:
    layer, x = adapted(), normal(5, 7, 12)
    found = layer(x)
    weight, bias, down, up = (p.detach().double() for p in (layer.base.weight, layer.base.bias, layer.down, layer.up))
    plain = x.double() @ weight.T + bias
    expected = plain.clone()
    expected[..., :12] += x.double() @ down[0].T @ up[0].T
    expected[..., 24:] += x.double() @ down[1].T @ up[1].T
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert torch.equal(found[..., 12:24], layer.base(x)[..., 12:24])
    assert not torch.allclose(found[..., :12], layer.base(x)[..., :12])
    merged = nn.functional.linear(x, merged_weight(layer), layer.base.bias)
    assert torch.allclose(found, merged, atol=1e-5)


def test_at_first_the_segmenter_is_what_it_was() -> None:
    plain, images = Segmenter(UNIT, rank=0).eval(), torch.rand(2, 3, 64, 64)
    before = plain(images)
    plain.adapt(4, seed=3)
    after = plain(images)
    assert torch.equal(before.logits, after.logits) and torch.equal(before.features, after.features)
    assert after.logits.shape == (2, 2, 32, 32) and after.features.shape == (2, 48, 8, 8)
    assert torch.equal(plain.features(images), after.features)
    down = plain.encoder.layers[0].attn.qkv.down
    assert 0.5 * 48**-0.5 < down.abs().max() <= 48**-0.5  # Kaiming with a = sqrt(5): even up to 1 / sqrt(D)


def test_only_adapters_prompt_and_decoder_learn() -> None:
    model, images = Segmenter(UNIT), torch.rand(2, 3, 64, 64)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(2):  # A learns once B is not nought
        optimizer.zero_grad()
        model(images).logits.square().mean().backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    encoder = {name for name in changed if "vision_encoder" in name}
    layers = range(UNIT.depth)
    expected = {f"sam.vision_encoder.layers.{i}.attn.qkv.{part}" for i in layers for part in ("up", "down")}
    assert encoder == expected
    rest = changed - encoder
    prompts = {name for name in rest if ".mask_decoder." not in name}
    assert prompts == {"sam.prompt_encoder.no_mask_embed.weight"}  # none is given; positions are fixed frequencies
    assert len(rest) > 60
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any("shared" in name for name in learned)
    assert any(name.startswith("sam.prompt_encoder.point_embed") for name in learned)


def test_the_published_size() -> None:
    with torch.device("meta"):
        model, images = Segmenter(PAPER), torch.empty(2, 3, 224, 224)
        seen = model(images)
    assert seen.logits.shape == (2, 2, 56, 56) and seen.features.shape == (2, 768, 14, 14)
    learned = [p for p in model.encoder.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learned) == 147_456 == 12 * 4 * 4 * 768
    whole = sum(p.numel() for p in model.encoder.parameters()) - 147_456
    assert round(whole / 1e6, 1) == 86.6
    for layer in model.encoder.layers:
        assert layer.attn.rel_pos_h.shape == layer.attn.rel_pos_w.shape == (27, 64)
    assert model.encoder.pos_embed.shape == (1, 14, 14, 768)


def test_the_features_are_what_transformers_sees_before_the_neck() -> None:
    model, images = Segmenter(UNIT).eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = model(images)
        seen = model.encoder((images - 0.5) / 0.25, output_hidden_states=True)
    assert torch.allclose(found.features, seen.hidden_states[-1].permute(0, 3, 1, 2), atol=1e-6)


def test_seeds_and_the_global_generator() -> None:
    before = torch.get_rng_state()
    first, again, other = (Segmenter(UNIT, seed=seed).state_dict() for seed in (1, 1, 2))
    model = Segmenter(UNIT, rank=0)
    model.adapt(2)
    assert torch.equal(torch.get_rng_state(), before)
    name = "sam.vision_encoder.layers.0.attn.qkv.down"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


def test_misfits_are_told_and_change_nothing() -> None:
    model = Segmenter(UNIT)
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    with pytest.raises(ValueError, match="has adapters already"):
        model.adapt(4)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == learned
    plain = Segmenter(UNIT, rank=0)
    with pytest.raises(ValueError, match="rank 49, expected"):
        plain.adapt(49)
    assert plain.encoder.pos_embed.requires_grad and plain.rank == 0
    with pytest.raises(ValueError, match="no attention with a fused projection"):
        add_adapters(nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match="query, key and value"):
        QueryValue(nn.Linear(4, 8), 1)
    with pytest.raises(ValueError, match=r"found images \[1, 3, 32, 32\].*size=64"):
        model(torch.rand(1, 3, 32, 32))
