"""The segmentation network, windows of scenes, and its training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from acclimate.models import RECIPES, train
from acclimate.models.augment import brightened, windows
from acclimate.models.files import read_tensors
from acclimate.models.recipes import SceneRecipe
from acclimate.models.segmenter import Segmenter, camvid_segmenter
from acclimate.streams.scenes import VOID, Scenes

RECIPE = "camvid-segmenter"


def small(seed: int = 0) -> Segmenter:
    return Segmenter(3, widths=(4, 8, 8), seed=seed)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(16, 16), (33, 50), (64, 48)])
def test_there_are_logits_for_every_pixel(size: tuple[int, int]):
    logits = small().eval()(torch.rand(2, 3, *size, generator=generator()))
    assert logits.shape == (2, 3, *size) and logits.isfinite().all()


def test_it_is_small_seeded_and_of_batch_norms():
    state = torch.get_rng_state()
    model = camvid_segmenter()
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert not model.training
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    assert norms and all(isinstance(m, torch.nn.BatchNorm2d) for m in norms)
    other, same = camvid_segmenter(seed=1), camvid_segmenter()
    assert torch.equal(model.stem.weight, same.stem.weight) and not torch.equal(model.stem.weight, other.stem.weight)


def test_a_pixel_is_answered_from_all_around():
    """Dilations make even far pixels count, and no pixel is answered without itself."""
    model = small().eval().double()
    images = torch.rand(1, 3, 96, 96, generator=generator()).double().requires_grad_()
    model(images)[0, :, 48, 48].sum().backward()
    assert images.grad is not None
    reach = images.grad.abs().sum((0, 1))
    assert reach[48, 48] > 0 and reach[4, 4] > 0 and reach[90, 90] > 0


def test_windows_keep_image_and_labels_together():
    """A picture whose colour is its label stays one, wherever it is cut, at any scale, mirrored or not."""
    labels = torch.randint(0, 3, (6, 8, 10), generator=generator()).repeat_interleave(6, 1).repeat_interleave(6, 2)
    images = (labels[:, None].float() / 4).expand(-1, 3, -1, -1).contiguous()
    cut, named = windows(images, labels, (30, 36), (0.8, 2.0), generator(1))
    assert cut.shape == (6, 3, 30, 36) and named.shape == (6, 30, 36)
    assert (named >= 0).all()
    close = ((cut - named[:, None] / 4).abs() < 1e-4).float().mean()
    assert close > 0.6  # all but the edges, which are interpolated


def test_windows_at_scale_one_are_cuts_or_mirrored_cuts():
    images = torch.rand(40, 1, 12, 12, generator=generator())
    labels = torch.zeros(40, 12, 12).long()
    cut, _ = windows(images, labels, (12, 12), (1.0, 1.0), generator(2))
    kept = [torch.allclose(one, two, atol=1e-5) for one, two in zip(cut, images, strict=True)]
    mirrored = [torch.allclose(one, two.flip(2), atol=1e-5) for one, two in zip(cut, images, strict=True)]
    assert all(one or two for one, two in zip(kept, mirrored, strict=True))
    assert 8 < sum(kept) < 32


def test_windows_beyond_the_border_are_black_and_void():
    cut, named = windows(torch.ones(3, 3, 8, 8), torch.ones(3, 8, 8).long(), (16, 16), (1.0, 1.0), generator())
    assert set(named.unique().tolist()) == {VOID, 1}
    assert (named == 1).sum((1, 2)).tolist() == [64, 64, 64]
    assert (cut[:, 0][named == VOID] < 1).all()


def test_brightness_is_a_factor_for_each_image():
    images = torch.full((50, 3, 2, 2), 0.5)
    factor = brightened(images, 0.2, generator()) / images
    assert (factor.amax((1, 2, 3)) - factor.amin((1, 2, 3)) < 1e-6).all()
    assert factor.min() >= 0.8 - 1e-6 and factor.max() <= 1.2 + 1e-6 and factor.std() > 0.05
    assert brightened(torch.ones(9, 3, 2, 2), 0.2, generator()).max() <= 1


def stripes(count: int = 12) -> Scenes:
    """Scenes that can be learned: three classes, three colours, in stripes; a void edge."""
    labels = torch.randint(0, 3, (count, 1, 4), generator=generator(5)).repeat(1, 24, 1).repeat_interleave(8, 2)
    colour = torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200]])
    noise = torch.randint(0, 30, (count, 3, 24, 32), generator=generator(6))
    images = (colour[labels].movedim(3, 1) + noise).to(torch.uint8)
    labels[:, :2] = VOID
    return Scenes("stripes", images, labels, ("a", "b", "c"), "train")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Scenes:
    data = stripes()
    monkeypatch.setattr("acclimate.models.training.camvid", lambda *_, **__: data)
    recipe = replace(RECIPES[RECIPE], build=small, batch_size=4, window=(16, 24))
    monkeypatch.setitem(RECIPES, RECIPE, recipe)
    return data


def test_class_weights_follow_the_pixels(tiny: Scenes):
    recipe = RECIPES[RECIPE]
    assert isinstance(recipe, SceneRecipe)
    labels = tiny.answers(torch.arange(len(tiny)))
    count = torch.tensor([(labels == c).sum() for c in range(3)]).double()
    share = count / count.sum()
    for power in (0.0, 0.5, 1.0):
        weights = replace(recipe, weighting=power).class_weights(tiny)
        assert weights is not None
        expected = share**-power
        assert torch.allclose(weights.double(), expected / (share * expected).sum(), rtol=1e-6)
        assert (share * weights).sum().item() == pytest.approx(1)  # of the mean pixel


def bits(path: Path) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in read_tensors(path)[0].items()}


class StoppedError(Exception):
    pass


def test_training_learns_resumes_bit_for_bit_and_leaves_chance_alone(tmp_path: Path, tiny: Scenes):
    state = torch.get_rng_state()
    calls: list[tuple[int, int, float, float]] = []
    whole = train(RECIPE, output=tmp_path / "whole.safetensors", epochs=6, progress=lambda *c: calls.append(c))
    assert torch.equal(torch.get_rng_state(), state)
    assert calls[-1][2] < calls[0][2] and all(0 <= call[3] <= 1 for call in calls)
    assert calls[-1][3] > 0.7

    def stop(epoch: int, *_: float) -> None:
        if epoch == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(RECIPE, output=tmp_path / "parts.safetensors", epochs=6, progress=stop)
    assert bits(train(RECIPE, output=tmp_path / "parts.safetensors", epochs=6)) == bits(whole)
    header = json.loads(read_tensors(whole)[1]["training"])
    assert (header["name"], header["window"], header["weighting"]) == (RECIPE, [16, 24], 0.5)


def test_other_label_maps_are_another_run(tmp_path: Path, tiny: Scenes, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: float) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        train(RECIPE, output=tmp_path / "w.safetensors", epochs=2, progress=stop)
    assert isinstance(tiny.labels, Tensor)
    other = Scenes(tiny.name, tiny.images, tiny.labels.roll(1, 0), tiny.classes, "train")
    monkeypatch.setattr("acclimate.models.training.camvid", lambda *_, **__: other)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        train(RECIPE, output=tmp_path / "w.safetensors", epochs=2)


def test_void_teaches_nothing(tmp_path: Path, tiny: Scenes, monkeypatch: pytest.MonkeyPatch):
    """Colours under void make no difference to the gradient of an otherwise equal step."""
    from acclimate.models.training import RecipeRun

    recipe = replace(RECIPES[RECIPE], jitter=0.0)
    run = RecipeRun(recipe, tiny, 1, 0, "cpu")
    run.model.train()
    logits = run.model(tiny.read(torch.arange(4)).float() / 255)
    labels = tiny.answers(torch.arange(4))
    loss = torch.nn.functional.cross_entropy(logits, labels, run.class_weights, ignore_index=VOID)
    known = labels != VOID
    weights = run.class_weights
    assert weights is not None
    picked = logits.movedim(1, 3)[known].double()
    each = weights.double()[labels[known]]
    byhand = (each * (picked.logsumexp(1) - picked.gather(1, labels[known][:, None])[:, 0])).sum() / each.sum()
    assert loss.item() == pytest.approx(byhand.item(), rel=1e-5)
