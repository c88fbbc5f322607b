"""The two autoencoders: shapes, counts, masking, losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.bcsam import BCSAM
from acclimate.fields.cells.embedding.domains import mean_discrepancy
from acclimate.fields.cells.embedding.dorl import DoRL
from acclimate.fields.cells.embedding.similarity import structural_similarity


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shapes(module: nn.Module, kinds: tuple[type, ...], call: Any) -> list[tuple[int, ...]]:
    """Of what the layers of these kinds give, without the batch."""
    seen: list[tuple[int, ...]] = []
    for layer in module.modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    call()
    return [*seen]


def small(**options: Any) -> DoRL:
    return DoRL(16, 8, **{"depth": 2, "decoder_depth": 1, "heads": 4, "share": 0.0625, "picture": 64, **options})


def batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.randn(size, 16, 8, 8, generator=seeded()),
        torch.rand(size, 3, 64, 64, generator=seeded(1)),
        torch.arange(size) % 2,
    )


def test_bcsam_has_the_published_shapes() -> None:
    with torch.device("meta"):
        model, features = BCSAM(768), torch.empty(2, 768, 14, 14)
        found = shapes(model, (nn.Conv2d, nn.ConvTranspose2d), lambda: model.parts(features, None))
        codes = model(features)
    drawn = [(150, 5), (200, 12), (256, 14), (200, 31), (180, 63), (150, 127), (128, 128), (3, 128)]
    published = [(256, 14), (256, 6), (50, 6), *drawn]
    assert found == [(channels, side, side) for channels, side in published]
    assert codes.shape == (2, 50)
    assert count(model.encoder) == 800_918
    kinds = [type(layer).__name__ for layer in model.decoder]
    assert kinds == ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 7 + ["ConvTranspose2d", "Sigmoid"]
    assert isinstance(model.decoder[0], nn.ConvTranspose2d) and model.decoder[0].bias is not None


def test_bcsam_codes_are_means_of_what_is_not_negative() -> None:
    model = BCSAM(16, inner=8, share=0.1, picture=64).eval()
    features, pictures, domains = batch()
    codes = model(features)
    assert torch.equal(codes, model.encoder(features).mean((2, 3))) and codes.min() >= 0
    drawn, aligned, again = model.parts(features, None)
    assert drawn.shape == pictures.shape and torch.equal(aligned, codes) and again is None
    losses = model.losses(features, pictures, domains)
    assert float(losses.features) == 0
    expected = 1 - structural_similarity(drawn, pictures) + 5 * mean_discrepancy(codes, domains)
    assert torch.allclose(model.loss(losses), expected)
    with pytest.raises(ValueError, match="picture must be one of 64, 128"):
        BCSAM(16, picture=100)


def test_dorl_has_the_published_shapes() -> None:
    with torch.device("meta"):
        model, features = DoRL(768, 14), torch.empty(2, 768, 14, 14)
        found = shapes(model.drawing, (nn.ConvTranspose2d,), lambda: model.parts(features, None))
        codes = model(features)
        drawn, projected, again = model.parts(features, None)
    published = [(512, 28), (256, 56), (128, 57), (64, 62), (3, 128)]
    assert found == [(channels, side, side) for channels, side in published]
    assert drawn.shape == (2, 3, 128, 128) and projected.shape == (2, 50) and codes.shape == (2, 768)
    assert again is not None and again.shape == features.shape
    block = 3 * 768**2 + 768**2 + 768 + 2 * 4 * 768**2 + 5 * 768 + 4 * 768  # no bias in the fused projection
    assert [count(each) for each in (model.blocks, model.decoder)] == [12 * block, 4 * block]
    assert [round(count(each) / 1e6) for each in (model.blocks, model.decoder)] == [85, 28]
    assert [tuple(p.shape) for p in (model.first, model.hidden, model.places, model.decoder_places)] == [
        (1, 768),
        (1, 768),
        (196, 768),
        (197, 768),
    ]
    assert [type(layer).__name__ for layer in model.drawing] == ["ConvTranspose2d", "ReLU"] * 4 + ["ConvTranspose2d"]
    assert isinstance(model.norm, nn.LayerNorm) and model.norm.eps == 1e-5


def test_49_of_196_tokens_are_seen_and_order_is_restored() -> None:
    model = DoRL(8, 14, depth=1, decoder_depth=1, heads=2, share=0.02)
    lengths: list[int] = []
    model.blocks.register_forward_hook(lambda _, __, out: lengths.append(out.shape[1]))
    features = torch.randn(3, 8, 14, 14, generator=seeded())
    model.parts(features, seeded(1))
    model.parts(features, None)
    model(features)
    assert lengths == [1 + 49, 1 + 196, 1 + 196]
    # Without anything between, what is seen comes back in its place and all else is the learned token.
    model.blocks, model.norm, model.decoder = nn.Sequential(), nn.Identity(), nn.Sequential()  # pyright: ignore
    model.decoder_places.data.zero_()
    model.hidden.data.fill_(9)
    again = model.parts(features, seeded(1))[2]
    assert again is not None
    tokens = features.flatten(2).transpose(1, 2) + model.places
    found = again.flatten(2).transpose(1, 2)
    seen = (found == tokens).all(2)
    assert seen.sum(1).tolist() == [49] * 3 and (found[~seen] == 9).all()
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])
    whole = model.parts(features, None)[2]
    assert whole is not None and torch.equal(whole.flatten(2).transpose(1, 2), tokens)


def test_dorl_codes_are_the_class_token_of_all_tokens() -> None:
    model, (features, *_) = small().eval(), batch()
    with torch.no_grad():
        tokens = features.flatten(2).transpose(1, 2) + model.places
        expected = model.norm(model.blocks(torch.cat([model.first.expand(6, 1, -1), tokens], 1)))[:, 0]
        assert torch.equal(model(features), expected) and torch.equal(model(features), model(features))
    with pytest.raises(ValueError, match=r"expected \[N, 16, 8, 8\]"):
        model(features[:, :, :4])


def test_dorl_can_align_its_codes() -> None:
    model, (features, pictures, domains) = small(aligned="code"), batch()
    losses = model.losses(features, pictures, domains)
    codes = model(features).double()
    means = [codes[domains == k].mean(0) for k in (0, 1)]
    assert torch.allclose(losses.domains.double(), (means[0] - means[1]).square().mean(), rtol=1e-4)
    with pytest.raises(ValueError, match="aligned must be one of"):
        small(aligned="both")


def test_dorl_losses_by_hand() -> None:
    model, (features, pictures, domains) = small(domain_weight=2.0), batch()
    losses = model.losses(features, pictures, domains, seeded(3))
    drawn, projected, again = model.parts(features, seeded(3))
    assert again is not None
    means = [projected[domains == k].double().mean(0) for k in (0, 1)]
    assert torch.allclose(losses.domains.double(), (means[0] - means[1]).square().sum() / 50, atol=1e-9)
    error = (again.double() - features.double()).square().sum() / (6 * 16 * 64)
    assert torch.allclose(losses.features.double(), error, rtol=1e-5)
    assert torch.allclose(losses.picture, 1 - structural_similarity(drawn, pictures))
    assert torch.allclose(model.loss(losses), losses.picture + 2 * losses.domains + losses.features)
    model.loss(losses).backward()
    unmoved = [name for name, p in model.named_parameters() if p.grad is None]
    assert unmoved == []


@pytest.mark.parametrize("make", [lambda seed: small(seed=seed), lambda seed: BCSAM(16, share=0.1, seed=seed)])
def test_draws_are_private(make: Any) -> None:
    before = torch.get_rng_state()
    first, again, other = (make(seed) for seed in (1, 1, 2))
    features, pictures, domains = batch()
    if isinstance(first, DoRL):
        losses = [first.loss(first.losses(features, pictures, domains, each)) for each in (seeded(1), seeded(1), None)]
        assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])
    assert torch.equal(torch.get_rng_state(), before)
    states = [torch.cat([p.flatten() for p in each.parameters()]) for each in (first, again, other)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert isinstance(first, Autoencoder) and first.code == (16 if isinstance(first, DoRL) else 50)


def test_grids_that_do_not_fit_are_told() -> None:
    assert DoRL(16, 16, depth=1, decoder_depth=1, heads=2, picture=128, share=0.02).parts(
        torch.zeros(1, 16, 16, 16), None
    )[0].shape == (1, 3, 128, 128)
    for grid, picture in ((7, 64), (64, 64), (14, 64)):
        with pytest.raises(ValueError, match=r"expected 14 and 128, or tokens that double"):
            DoRL(16, grid, depth=1, decoder_depth=1, heads=2, picture=picture)
    with pytest.raises(ValueError, match="masked must lie between"):
        small(masked=1.5)
