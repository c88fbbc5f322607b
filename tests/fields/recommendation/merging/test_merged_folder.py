from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from acclimate.fields.recommendation.merging.export import export
from acclimate.fields.recommendation.merging.folder import load_merged, save_merged
from acclimate.fields.recommendation.merging.merged import Merged, merge
from acclimate.fields.recommendation.models.registry import build
from acclimate.models import digits_resnet

SIZES = (5, 7, 3, 9)
IDS = torch.tensor([[0, 5, 12, 15], [4, 11, 14, 23], [2, 8, 13, 20]])


def rankers(**settings: object) -> Merged:
    names = ("fnn", "dcnv2", "rankmixer", "wukong")
    return merge([build(name, SIZES, preset="small", seed=seed) for seed, name in enumerate(names)], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{}, {"how": "prob_mean", "weights": [1, 2, 3, 4]}])
def test_a_folder_holds_all_of_it(tmp_path: Path, settings: dict[str, object]) -> None:
    model = rankers(**settings)
    again = load_merged(save_merged(model, tmp_path / "merged"))
    assert again.how == model.how and torch.equal(again(IDS), model(IDS))
    assert not any(path.name.endswith((".pt", ".pkl", ".bin")) for path in (tmp_path / "merged").iterdir())


def test_classifiers_of_any_kind_are_given_their_architecture(tmp_path: Path) -> None:
    model = merge([digits_resnet().eval(), digits_resnet().eval()])
    x = torch.randn(3, 1, 16, 16)
    save_merged(model, tmp_path)
    with pytest.raises(ValueError, match="Give its architecture"):
        load_merged(tmp_path)
    again = load_merged(tmp_path, [digits_resnet(), digits_resnet()])
    assert torch.equal(again(x), model(x))
    with pytest.raises(ValueError, match="found 1 members, expected the 2"):
        load_merged(tmp_path, [digits_resnet()])
    with pytest.raises(ValueError, match="do not fit Linear"):
        load_merged(tmp_path, [digits_resnet(), nn.Linear(2, 2)])


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no merged\.json"):
        load_merged(tmp_path)
    save_merged(rankers(), tmp_path)
    (tmp_path / "member-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="member-1"):
        load_merged(tmp_path)
    (tmp_path / "merged.json").write_text(json.dumps({"how": "logit_mean"}))
    with pytest.raises(ValueError, match="cannot be read"):
        load_merged(tmp_path)


def test_a_merged_model_is_exported(tmp_path: Path) -> None:
    model = rankers()
    path = export(model, tmp_path / "merged.pt2", IDS)
    again = torch.export.load(path).module()
    for rows in (IDS, IDS[:1], IDS.repeat(5, 1)):
        torch.testing.assert_close(again(rows), model(rows))
    session = onnxruntime.InferenceSession(str(export(model, tmp_path / "merged.onnx", IDS)))
    name = session.get_inputs()[0].name
    for rows in (IDS, IDS[:1], IDS.repeat(5, 1)):
        torch.testing.assert_close(torch.from_numpy(session.run(None, {name: rows.numpy()})[0]), model(rows).detach())
    with pytest.raises(ValueError, match=r"ends in \.pt2 or \.onnx"):
        export(model, tmp_path / "merged.bin", IDS)
    with pytest.raises(ValueError, match="two rows or more"):
        export(model, tmp_path / "merged.pt2", IDS[:1])
