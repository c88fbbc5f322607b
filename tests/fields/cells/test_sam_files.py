"""Trained segmenters as files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acclimate.fields.cells.sam.files import load_adapter, load_segmenter, save_adapter, save_segmenter
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import UNIT
from acclimate.models.files import write_tensors


def learned(seed: int = 0, **options: int) -> Segmenter:
    """As if it had been trained: all that learns is moved, and so are the colours."""
    model = Segmenter(UNIT, seed=seed, **options).eval()
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.mean.fill_(0.7)
    return model


IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [{}, {"parts": 3, "rank": 2}, {"rank": 0}])
def test_a_segmenter_comes_back(options: dict[str, int], tmp_path: Path) -> None:
    model = learned(**options)
    again = load_segmenter(save_segmenter(model, tmp_path / "model.safetensors"))
    assert not again.training and (again.parts, again.rank) == (model.parts, model.rank)
    assert torch.equal(again(IMAGES).logits, model(IMAGES).logits)
    told = [[n for n, p in each.named_parameters() if p.requires_grad] for each in (model, again)]
    assert told[0] == told[1]


def test_an_adapter_is_small_and_comes_back(tmp_path: Path) -> None:
    model = learned()
    whole = save_segmenter(model, tmp_path / "whole.safetensors")
    path = save_adapter(model, tmp_path / "adapter.safetensors")
    assert path.stat().st_size < whole.stat().st_size / 2
    again = load_adapter(Segmenter(UNIT), path)
    assert torch.equal(again(IMAGES).logits, model(IMAGES).logits)


def test_an_adapter_refuses_another_base_and_changes_nothing(tmp_path: Path) -> None:
    path = save_adapter(learned(), tmp_path / "adapter.safetensors")
    others = [(Segmenter(UNIT, seed=1), "base"), (Segmenter(UNIT, parts=3), "parts"), (Segmenter(UNIT, rank=2), "rank")]
    moved = Segmenter(UNIT)
    moved.sam.shared_image_embedding.positional_embedding.data += 1
    for other, what in (*others, (moved, "base"), (Segmenter(UNIT.at(128)), "size, base")):
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(ValueError, match=rf"is of another {what}.*Load the encoder that it was trained on"):
            load_adapter(other, path)
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_other_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(FileNotFoundError):
        load_segmenter(path)
    write_tensors(path, {"x": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="no segmenter of cells"):
        load_segmenter(path)
    write_tensors(path, {"x": torch.zeros(1)}, {"training": '{"size": {"name": 1}, "parts": 2, "rank": 4}'})
    with pytest.raises(ValueError, match="no segmenter of cells"):
        load_segmenter(path)
    write_tensors(path, {"x": torch.zeros(1)}, {"training": '{"size": "unit", "parts": 2, "rank": 4}'})
    with pytest.raises(ValueError, match=r"does not fit .*missing, 1 of no use"):
        load_segmenter(path)
    with pytest.raises(ValueError, match="has no adapters"):
        save_adapter(Segmenter(UNIT, rank=0), path)
    with pytest.raises(ValueError, match="missing"):
        load_segmenter(save_adapter(learned(), path))
