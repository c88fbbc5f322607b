"""The small diffusion transformers: the loss by hand, steps that lower it, and sampling of fields that are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from acclimate.fields.diffusion.tiny import DIFFUSION, NOTHING, FlowRecipe, load_dit, sample, start_noise, tiny_dit
from acclimate.models import train

diffusers = pytest.importorskip("diffusers")


class Known(nn.Module):
    """A field of velocity of which the integral is known: `v = a + label`, whatever the point and time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, list[int]]] = []

    def forward(
        self, x: Tensor, *, timestep: Tensor, class_labels: Tensor, return_dict: bool = True
    ) -> tuple[Tensor, ...]:
        assert not return_dict and timestep.shape == class_labels.shape == x.shape[:1]
        self.asked.append((float(timestep[0]), class_labels.tolist()))
        return (torch.ones_like(x) * (0.5 + class_labels.to(x)).view(-1, 1, 1, 1),)


def small(seed: int = 0) -> nn.Module:
    return tiny_dit(side=8, patch=2, channels=1, width=16, heads=2, layers=2, seed=seed)


@pytest.mark.parametrize("name", DIFFUSION)
def test_a_fresh_model_predicts_nothing_and_its_loss_is_the_square_of_the_velocity(name: str) -> None:
    recipe = DIFFUSION[name]
    assert isinstance(recipe, FlowRecipe)
    images, labels = torch.rand(6, 3, 32, 32, generator=Generator().manual_seed(0)), torch.arange(6)
    model = recipe.build(seed=1).train()
    loss, right = recipe.loss(model, images, labels, None, Generator().manual_seed(5))
    points, time, velocity = recipe.noised(images, Generator().manual_seed(5))
    assert float(loss.detach()) == pytest.approx(float(velocity.square().mean()), rel=1e-6) and float(right) == 0
    assert points.shape == (6, recipe.channels, recipe.side, recipe.side)
    # At its time a path has gone its velocity's way from the image: x = point - t v.
    clean = points - time.view(-1, 1, 1, 1) * velocity
    factor = 32 // recipe.side
    blocks = images[:, : recipe.channels].unflatten(2, (-1, factor)).unflatten(4, (-1, factor)).mean((3, 5))
    assert torch.allclose(clean, 2 * blocks - 1, atol=1e-5)


@pytest.mark.parametrize("name", DIFFUSION)
def test_steps_of_training_lower_the_loss_and_leave_the_global_generator_alone(name: str) -> None:
    recipe, before = DIFFUSION[name], torch.get_rng_state()
    model, labels = recipe.build().train(), torch.arange(8) % 10
    images = torch.rand(8, 3, 32, 32, generator=Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses: list[float] = []
    for _ in range(12):
        loss, right = recipe.loss(model, images, labels, None, Generator().manual_seed(1))
        assert 0 <= float(right) <= 8
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0]
    assert torch.equal(before, torch.get_rng_state())


def test_a_share_of_labels_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = DIFFUSION["digits-dit"]
    field, labels = Known(), torch.arange(400) % 10
    recipe.loss(field, torch.zeros(400, 3, 32, 32), labels, None, Generator().manual_seed(0))
    given = torch.tensor(field.asked[0][1])
    assert 0.05 < (given == NOTHING).float().mean() < 0.16
    assert torch.equal(given[given != NOTHING], labels[given != NOTHING])


def test_a_known_field_is_integrated_exactly_and_guidance_extrapolates_it() -> None:
    noise, labels = torch.randn(3, 1, 4, 4, generator=Generator().manual_seed(0)), torch.tensor([0, 1, 2])
    field, steps = Known(), list[int]()
    found = sample(field, labels, noise, steps=7, seen=lambda number, x: steps.append(number))
    # From time 1 to 0: the noise less the velocity.
    assert torch.allclose(found, noise - (0.5 + labels).view(-1, 1, 1, 1), atol=1e-5)
    assert steps == list(range(7)) and len(field.asked) == 7
    times = [time for time, _ in field.asked]
    assert times[0] == 1000 and times == sorted(times, reverse=True)
    field = Known()
    guided = sample(field, labels, noise, steps=5, guidance=2.0)
    both = 0.5 + NOTHING + 2.0 * (labels - NOTHING)
    assert torch.allclose(guided, noise - both.view(-1, 1, 1, 1), atol=1e-4)
    assert [asked for _, asked in field.asked] == [[0, 1, 2], [NOTHING] * 3] * 5


def test_noise_is_the_same_at_any_count_and_sampling_draws_none() -> None:
    model = small().eval()
    assert torch.equal(start_noise(model, 5, seed=3)[:2], start_noise(model, 2, seed=3))
    assert not torch.equal(start_noise(model, 2, seed=3), start_noise(model, 2, seed=4))
    labels, noise = torch.tensor([1, 2]), start_noise(model, 2)
    nn.init.normal_(model.proj_out_2.weight, generator=Generator().manual_seed(0))  # type: ignore[arg-type]
    before = torch.get_rng_state()
    assert torch.equal(sample(model, labels, noise, steps=3), sample(model, labels, noise, steps=3))
    assert torch.equal(before, torch.get_rng_state())


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    recipe = FlowRecipe(
        name="any", dataset="digits", build=lambda weights=None, *, seed=0: tiny_dit(
            weights, side=8, patch=4, channels=1, width=16, heads=2, layers=1, seed=seed
        ), side=8, channels=1, epochs=2, batch_size=250, learning_rate=1e-3, optimizer="adamw", shift=0,
    )  # fmt: skip
    whole = train(recipe, output=tmp_path / "whole.safetensors")

    def stop(epoch: int, epochs: int, loss: float, right: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, output=tmp_path / "cut.safetensors", progress=stop)
    cut = train(recipe, output=tmp_path / "cut.safetensors")
    assert whole.read_bytes() == cut.read_bytes()


def test_what_is_not_there_or_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="acclimate train digits-dit"):
        load_dit("digits-dit")
    with pytest.raises(ValueError, match="expected one of digits-dit, cifar10-dit"):
        load_dit("flux")
    with pytest.raises(ValueError, match="patches fill"):
        tiny_dit(side=9, patch=2, channels=1, width=16, heads=2, layers=1)
    with pytest.raises(ValueError, match="one for each"):
        sample(Known(), torch.zeros(3, dtype=torch.int64), torch.zeros(2, 1, 4, 4))
