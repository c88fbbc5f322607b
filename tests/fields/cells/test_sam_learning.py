"""Training of the segmenter on masks that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.sam.colours import colours_of
from acclimate.fields.cells.sam.files import load_adapter, load_segmenter, save_adapter
from acclimate.fields.cells.sam.learning import MaskTraining, train_segmenter
from acclimate.fields.cells.sam.loss import dice
from acclimate.fields.cells.sam.seeing import see
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import UNIT
from acclimate.streams.scenes import VOID

SHORT = MaskTraining(epochs=2, batch_size=8, learning_rate=1e-3, stain=0.3, own_colours=True)


def stopped(epoch: int, *_: float) -> None:
    if epoch == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize("rank", [0, 2])
def test_training_that_was_interrupted_ends_with_the_same_bits(rank: int, tmp_path: Path) -> None:
    cells = list(made_up(12, 0).values())
    whole = train_segmenter(Segmenter(UNIT, rank=rank), cells, SHORT, tmp_path / "whole.safetensors")
    parted = tmp_path / "parted.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_segmenter(Segmenter(UNIT, rank=rank), cells, SHORT, parted, progress=stopped)
    assert not parted.exists()
    epochs: list[int] = []
    model = Segmenter(UNIT, rank=rank)
    train_segmenter(model, cells, SHORT, parted, progress=lambda epoch, *_: epochs.append(epoch))
    assert epochs == [2] and parted.read_bytes() == whole.read_bytes()
    again, images = load_segmenter(parted), torch.rand(1, 3, 64, 64)
    assert torch.equal(again(images).logits, model(images).logits) and not model.training


def test_cells_are_found_in_seconds(tmp_path: Path) -> None:
    model = Segmenter(UNIT, parts=3, rank=0)
    training = MaskTraining(epochs=8, batch_size=16, learning_rate=3e-3, own_colours=True)
    told: list[float] = []
    train_segmenter(
        model,
        list(made_up(64, 0).values()),
        training,
        tmp_path / "m.safetensors",
        progress=lambda *e: told.append(e[3]),
    )
    assert told[-1] > 0.85 and told[-1] > told[0]
    for laboratory in made_up(16, 1).values():
        assert laboratory.masks is not None
        seen = see(model, laboratory, own_colours=True, batch_size=5)
        assert seen.masks.dtype == torch.int8 and seen.features.shape == (16, 48, 8, 8)
        assert dice(seen.masks > 0, laboratory.masks > 0).mean() > 0.85
        assert dice(seen.masks == 2, laboratory.masks == 2).mean() > 0.4


def test_whole_cells_teach_nothing_of_the_nucleus(tmp_path: Path) -> None:
    """One laboratory's masks tell it, the other's do not; both are found to have one all the same."""
    one, two = made_up(64, 0).values()
    assert one.masks is not None and two.masks is not None
    known = [one, replace(two, masks=two.masks.clamp_max(1))]
    model = Segmenter(UNIT, parts=3, rank=0)
    training = MaskTraining(epochs=8, batch_size=16, learning_rate=3e-3, own_colours=True)
    train_segmenter(model, known, training, tmp_path / "m.safetensors")
    seen = see(model, two, own_colours=True)
    assert dice(seen.masks > 0, two.masks > 0).mean() > 0.85
    assert dice(seen.masks == 2, two.masks == 2).mean() > 0.4


def test_the_epoch_that_finds_held_out_cells_best_is_kept(tmp_path: Path) -> None:
    cells = list(made_up(16, 0).values())
    # So fast that later epochs spoil what earlier ones have learned.
    training = MaskTraining(epochs=5, batch_size=8, learning_rate=2e-2, held_out=0.25)
    model = Segmenter(UNIT, rank=0)
    found: list[dict[str, torch.Tensor]] = []

    def keep(*_: float) -> None:
        found.append({name: value.clone() for name, value in model.state_dict().items()})

    train_segmenter(model, cells, training, tmp_path / "m.safetensors", progress=keep)
    held = torch.randperm(32, generator=torch.Generator().manual_seed(0))[:8].sort().values
    rest = torch.tensor([place for place in range(32) if place not in held])
    images = torch.cat([each.images for each in cells])
    masks = torch.cat([each.masks for each in cells if each.masks is not None])
    assert torch.equal(model.mean, colours_of(images[rest]).mean)
    scores: list[float] = []
    for weights in found:
        other = Segmenter(UNIT, rank=0)
        other.load_state_dict(weights)
        with torch.no_grad():
            said = other.eval()(images[held].float() / 255).logits.argmax(1) > 0
        near = torch.nn.functional.interpolate(masks[held][:, None].float(), said.shape[1:])[:, 0] > 0
        common = (said & near).sum((1, 2)).double()
        scores.append(float((2 * common / (said.sum((1, 2)) + near.sum((1, 2)))).mean()))
    best = found[scores.index(max(scores))]
    assert scores.index(max(scores)) < len(scores) - 1
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


def test_what_is_held_out_is_a_share(tmp_path: Path) -> None:
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match="held_out"):
            MaskTraining(held_out=wrong)
    with pytest.raises(ValueError, match=r"found 2 cells with masks and held_out = 0\.9, which leaves none"):
        train_segmenter(
            Segmenter(UNIT), [made_up(2, 0)["made-up-1"]], replace(SHORT, held_out=0.9), tmp_path / "m.safetensors"
        )


def test_adapters_alone_learn_too(tmp_path: Path) -> None:
    cells, base = list(made_up(12, 0).values()), Segmenter(UNIT)
    frozen = {name: p.detach().clone() for name, p in base.named_parameters() if not p.requires_grad}
    train_segmenter(base, cells, SHORT, tmp_path / "m.safetensors")
    assert all(torch.equal(p, frozen[name]) for name, p in base.named_parameters() if name in frozen)
    again = load_adapter(Segmenter(UNIT), save_adapter(base, tmp_path / "a.safetensors"))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(again(images).logits, base(images).logits)


def test_only_masks_that_are_known_are_used(tmp_path: Path) -> None:
    one, two = made_up(6, 0).values()
    assert one.masks is not None
    masks = one.masks.clone()
    masks[3:] = VOID
    model = Segmenter(UNIT)
    first = train_segmenter(
        model, [replace(one, masks=masks), replace(two, masks=None)], SHORT, tmp_path / "a.safetensors"
    )
    assert torch.allclose(model.mean, colours_of(one.images[:3]).mean)
    known = one.take(torch.arange(3))
    again = train_segmenter(Segmenter(UNIT), [known], SHORT, tmp_path / "b.safetensors")
    assert first.read_bytes() == again.read_bytes()


def test_own_colours_are_those_of_the_laboratory() -> None:
    laboratory, model = made_up(6, 0)["made-up-1"], Segmenter(UNIT).eval()
    seen = see(model, laboratory, own_colours=True)
    with torch.no_grad():
        expected = model(laboratory.images.float() / 255, colours_of(laboratory.images))
    assert torch.equal(seen.features, expected.features.half())
    assert not torch.equal(seen.features, see(model, laboratory).features)


def test_what_cannot_be_learned_is_told(tmp_path: Path) -> None:
    laboratory, path = made_up(4, 0)["made-up-1"], tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="no mask is known in made-up-1, expected some"):
        train_segmenter(Segmenter(UNIT), [replace(laboratory, masks=None)], SHORT, path)
    with pytest.raises(ValueError, match="no mask is known in no laboratory"):
        train_segmenter(Segmenter(UNIT), [], SHORT, path)
    with pytest.raises(ValueError, match=r"made-up-1 has pictures of 32 pixels, expected 64. Read it with size=64"):
        train_segmenter(Segmenter(UNIT), [laboratory, made_up(4, 0, size=32)["made-up-1"]], SHORT, path)
    with pytest.raises(KeyboardInterrupt):
        train_segmenter(Segmenter(UNIT), [laboratory], SHORT, path, progress=stopped)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        train_segmenter(Segmenter(UNIT, seed=1), [laboratory], SHORT, path)
