"""The command, the cached source model and the figure."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import acclimate.fields.segmentation as field
from acclimate.cli.app import launch
from acclimate.fields.segmentation import CAMVID_CLASSES, ROAD_CLASSES, Scenes, evaluate, source_segmenter
from acclimate.fields.segmentation.picture import painted, scene_grid
from acclimate.models import RECIPES


def scenes(split: str = "test", count: int = 4) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 40), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, 11, (count, 32, 40), generator=generator)
    return Scenes("camvid", images, labels, CAMVID_CLASSES, split)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path))
    monkeypatch.setattr("acclimate.models.training.camvid", lambda split, **_: scenes(split))
    monkeypatch.setattr(field, "camvid", lambda split, **_: scenes(split))
    recipe = replace(RECIPES["camvid-segmenter"], epochs=1, batch_size=2, window=(16, 16))
    monkeypatch.setitem(RECIPES, "camvid-segmenter", recipe)
    return tmp_path


def test_the_source_is_trained_once_and_then_read(tiny: Path):
    epochs: list[int] = []
    first = source_segmenter(progress=lambda epoch, *_: epochs.append(epoch))
    second = source_segmenter(progress=lambda epoch, *_: epochs.append(epoch))
    assert epochs == [1] and not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    (file,) = (tiny / "models").iterdir()
    assert file.name.startswith("camvid-segmenter-")
    third = source_segmenter(file)
    counts, again = evaluate(first, scenes(), batch_size=1), evaluate(third, scenes(), batch_size=4)
    assert counts.matrix.sum() == again.matrix.sum() == (scenes().answers(torch.arange(4)) >= 0).sum()


def test_the_command_prints_the_table_and_writes_the_record(tiny: Path, capsys: pytest.CaptureFixture[str]):
    output = tiny / "found.json"
    options = ["--rounds", "2", "--size", "2", "--normalization", "alpha", "--set", "tent.learning_rate=0.01"]
    assert launch(["segment", "source", "tent", *options, "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "| method | fog 1 | night 1 | rain 1 | snow 1 | mean |" in said
    saved = json.loads(output.read_text())
    assert saved["methods"]["tent"]["learning_rate"] == 0.01
    assert saved["methods"]["tent"]["normalization"]["name"] == "alpha"
    assert len(saved["cells"]) == 2 * 2 * 4


def test_unknown_methods_are_told(tiny: Path, capsys: pytest.CaptureFixture[str]):
    assert launch(["segment", "tint"]) == 2
    assert "no method 'tint'" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [CAMVID_CLASSES, ROAD_CLASSES])
def test_every_class_has_a_colour_and_void_is_black(classes: tuple[str, ...]):
    labels = torch.arange(-1, len(classes))[None]
    colours = painted(labels, classes)
    assert colours.shape == (3, 1, len(classes) + 1)
    assert colours[:, 0, 0].max() < 0.2
    assert len({tuple(colour) for colour in colours[:, 0].T.tolist()}) > 10
    assert colours.min() >= 0 and colours.max() <= 1


def answered(count: int) -> Tensor:
    return torch.randint(0, 11, (count, 32, 40), generator=torch.Generator().manual_seed(1))


def test_the_grid_has_a_row_for_each_scene_and_a_column_for_each_model():
    data = scenes()
    images, truth = data.read(torch.arange(2)).float() / 255, data.answers(torch.arange(2))
    figure = scene_grid(images, truth, {"source": answered(2), "tent": answered(2)}, names=["fog", "night"])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["image", "truth", "source", "tent"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fog", "night"]
    shown = torch.as_tensor(axes.images[0].get_array())
    assert torch.allclose(shown[:32, :40].permute(2, 0, 1), images[0], atol=1e-6)
    assert shown.shape == (2 * 36 - 4, 4 * 44 - 4, 3)
    with pytest.raises(ValueError, match="tent has shape"):
        scene_grid(images, truth, {"tent": answered(3)})
