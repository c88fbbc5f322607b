"""Training of autoencoders on what a segmenter sees."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.bcsam import BCSAM
from acclimate.fields.cells.embedding.dorl import DoRL
from acclimate.fields.cells.embedding.learning import CodeTraining, codes, level, means, train_autoencoder
from acclimate.fields.cells.embedding.targets import targets
from acclimate.fields.cells.embedding.views import Views, look, side
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import UNIT

MAKE: dict[str, Callable[..., Autoencoder]] = {
    "bcsam": lambda **options: BCSAM(48, inner=32, share=0.0625, picture=64, **options),
    "dorl": lambda **options: DoRL(48, 8, depth=2, decoder_depth=1, heads=4, share=0.0625, picture=64, **options),
}
CELLS = 24
SHORT = CodeTraining(epochs=2, batch_size=16, learning_rate=1e-3)


@pytest.fixture(scope="module")
def views() -> list[Views]:
    """Two laboratories from two sides, by an encoder with random weights and the true masks."""
    model, seen = Segmenter(UNIT, rank=0).eval(), []
    for laboratory in made_up(CELLS, 0).values():
        assert laboratory.masks is not None
        turns = [side(laboratory.images, number) for number in (0, 5)]
        with torch.no_grad():
            features = torch.stack([model.features(each.float() / 255).half() for each in turns])
        drawn = [targets(each, side(laboratory.masks, n) > 0, 64)[0] for each, n in zip(turns, (0, 5), strict=True)]
        pictures = (torch.stack(drawn) * 255).round().byte()
        seen.append(Views(features, pictures, laboratory.masks, laboratory.images))
    return seen


def stopped(epoch: int, *_: float) -> None:
    if epoch == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", MAKE)
def test_training_that_was_interrupted_ends_with_the_same_bits(kind: str, views: list[Views], tmp_path: Path) -> None:
    whole = train_autoencoder(MAKE[kind](), views, SHORT, tmp_path / "whole.safetensors")
    parted = tmp_path / "parted.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(MAKE[kind](), views, SHORT, parted, progress=stopped)
    assert not parted.exists()
    epochs: list[int] = []
    model = MAKE[kind]()
    train_autoencoder(model, views, SHORT, parted, progress=lambda epoch, *_: epochs.append(epoch))
    assert epochs == [2]
    assert hashlib.sha256(parted.read_bytes()).digest() == hashlib.sha256(whole.read_bytes()).digest()
    other = train_autoencoder(MAKE[kind](), views, SHORT, tmp_path / "other.safetensors", seed=1)
    assert other.read_bytes() != whole.read_bytes()


def test_another_run_s_checkpoint_is_refused(views: list[Views], tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(MAKE["dorl"](), views, SHORT, path, progress=stopped)
    for model, seen in ((MAKE["dorl"](domain_weight=1.0), views), (MAKE["dorl"](), views[::-1])):
        with pytest.raises(ValueError, match="checkpoint of another run"):
            train_autoencoder(model, seen, SHORT, path)
    with pytest.raises(ValueError, match=r"from \[1, 2\] sides, expected one number"):
        train_autoencoder(MAKE["dorl"](), [views[0], replace(views[1], features=views[1].features[:1])], SHORT, path)
    with pytest.raises(ValueError, match=r"from \[\] sides"):
        train_autoencoder(MAKE["dorl"](), [], SHORT, path)


@pytest.mark.parametrize("kind", MAKE)
def test_pictures_are_learned_in_fifty_steps_and_laboratories_brought_together(
    kind: str, views: list[Views], tmp_path: Path
) -> None:
    training = CodeTraining(epochs=7, batch_size=8, learning_rate=5e-3)  # 42 steps
    features = torch.cat([each.features[0].float() for each in views])
    pictures = torch.cat([each.pictures[0].float() for each in views]) / 255
    domains = torch.arange(len(features)) // CELLS
    gaps = []
    for weight in (0.0, 5.0):
        model = MAKE[kind](domain_weight=weight)
        with torch.no_grad():
            before = model.losses(features, pictures, domains)
            train_autoencoder(model, views, training, tmp_path / f"{weight}.safetensors")
            after = model.losses(features, pictures, domains)
        assert after.picture < 0.8 * before.picture
        gaps.append(after.domains.sqrt())
    assert gaps[1] < 0.8 * gaps[0]


def test_codes_are_means_over_sides(views: list[Views]) -> None:
    model = MAKE["bcsam"]().train()
    found = codes(model, views[0].features)
    assert model.training and found.shape == (CELLS, 50) and found.dtype == torch.float32
    model.eval()
    with torch.no_grad():
        expected = (model(views[0].features[0].float()) + model(views[0].features[1].float())) / 2
    assert torch.allclose(found, expected, atol=1e-6)


def test_batches_are_picked_out_of_laboratories_as_if_they_lay_together(views: list[Views], tmp_path: Path) -> None:
    """Two laboratories apart, and their cells in one: the same features, pictures and draws, and but for the domains
    the same training."""
    together = Views(
        torch.cat([each.features for each in views], 1),
        torch.cat([each.pictures for each in views], 1),
        torch.cat([each.masks for each in views]),
        torch.cat([each.images for each in views]),
    )
    found = []
    for name, seen in (("apart", views), ("together", [together])):
        model = MAKE["bcsam"](domain_weight=0.0)
        train_autoencoder(model, seen, SHORT, tmp_path / f"{name}.safetensors")
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_batches_are_cells_with_their_pictures_from_any_side(views: list[Views], tmp_path: Path) -> None:
    model = MAKE["bcsam"]()
    losses, met = model.losses, list[tuple[int, int, int]]()

    def noted(features: torch.Tensor, pictures: torch.Tensor, domains: torch.Tensor, *rest: Any) -> Any:
        for maps, picture, domain in zip(features, pictures, domains.tolist(), strict=True):
            kept = views[domain]
            (place,) = (kept.features.float() == maps).flatten(2).all(2).nonzero().tolist()
            assert torch.equal(kept.pictures[place[0], place[1]].float() / 255, picture)
            met.append((domain, *place))
        return losses(features, pictures, domains, *rest)

    model.losses = noted
    train_autoencoder(model, views, replace(SHORT, epochs=1), tmp_path / "m.safetensors")
    assert sorted((domain, cell) for domain, _, cell in met) == [(d, c) for d in range(2) for c in range(CELLS)]
    sides = [number for _, number, _ in met]
    assert abs(sides.count(0) - CELLS) < 4 * CELLS**0.5 / 2**0.5  # four deviations of a fair coin


def test_means_are_over_sides_and_places() -> None:
    features = torch.randn(3, 300, 4, 5, 5, generator=torch.Generator().manual_seed(0)).half()
    assert np.allclose(means(features), features.double().numpy().mean((0, 3, 4)), atol=1e-5)


def test_feature_maps_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    laboratory, model = made_up(5, 1)["made-up-1"], Segmenter(UNIT, parts=3).eval()
    kept = look(model, laboratory, sides=2, picture=32, room=tmp_path / "room")
    plain = look(model, laboratory, sides=2, picture=32)
    assert torch.equal(kept.features, plain.features) and torch.equal(kept.pictures, plain.pictures)
    assert list((tmp_path / "room").iterdir()) == []  # a file without a name


def test_level_codes_have_no_mean_and_a_deviation_of_one() -> None:
    found = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
    found[:, 3] = 2
    expected = found[:, :3].double().numpy()
    expected = (expected - expected.mean(0)) / expected.std(0)
    assert np.allclose(level(found)[:, :3], expected, atol=1e-5) and (level(found)[:, 3] == 0).all()


def test_the_learning_rate_is_the_published_one() -> None:
    training = CodeTraining(learning_rate=5e-4)
    for steps, rise in ((2570, 257), (10_000, 500), (5, 1)):
        for step in {0, rise - 1, rise, steps - 1}:
            risen = (step + 1) / rise if step < rise else 0.5 * (1 + np.cos(np.pi * (step - rise) / steps))
            assert np.isclose(training.rate(step, steps), 5e-4 * risen)


def test_sides_are_all_the_ways_a_square_can_lie() -> None:
    picture = torch.arange(9).view(1, 3, 3)
    sides = [side(picture, number) for number in range(8)]
    assert torch.equal(sides[0], picture)
    assert torch.equal(sides[6], torch.rot90(picture, 2, (-2, -1)).flip(-1))
    assert len({tuple(each.flatten().tolist()) for each in sides}) == 8


def test_a_look_sees_each_side_as_a_picture_of_its_own() -> None:
    laboratory = made_up(5, 1)["made-up-1"]
    model = Segmenter(UNIT, parts=3).eval()
    told: list[tuple[int, int]] = []
    seen = look(model, laboratory, sides=6, picture=32, progress=lambda *each: told.append(each))
    assert len(seen) == 5 and seen.features.shape == (6, 5, 48, 8, 8) and seen.features.dtype == torch.float16
    assert seen.pictures.shape == (6, 5, 3, 32, 32) and seen.masks.shape == (5, 64, 64)
    assert told[-1] == (30, 30)
    turned = replace(laboratory, images=side(laboratory.images, 5), masks=None)
    alone = look(model, turned, picture=32)
    assert torch.equal(seen.features[5], alone.features[0]) and torch.equal(seen.pictures[5], alone.pictures[0])
    with torch.no_grad():
        expected = model(laboratory.images.float() / 255)
    assert torch.equal(seen.features[0], expected.features.half())
    whole = torch.nn.functional.interpolate(expected.logits, (64, 64), mode="bilinear").argmax(1)
    assert torch.equal(seen.masks.long(), whole)
    for wrong in (0, 9):
        with pytest.raises(ValueError, match="sides"):
            look(model, laboratory, sides=wrong)


def test_laboratories_are_brought_to_common_means(views: list[Views]) -> None:
    assert (views[0].features.float().mean((0, 1, 3, 4)) - views[1].features.float().mean((0, 1, 3, 4))).norm() > 0.3
    for each in (one.standard() for one in views):
        features = each.features.double()
        assert features.mean((0, 1, 3, 4)).abs().max() < 2e-3
        assert (features.std((0, 1, 3, 4)) - 1).abs().max() < 2e-3
        pictures = each.pictures.double() / 255
        assert (pictures.mean((0, 1, 3, 4)) - 0.5).abs().max() < 0.02  # but for what is cut at 0 and 1
