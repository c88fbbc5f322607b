from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

from acclimate.fields.recommendation.merging import folder
from acclimate.fields.recommendation.merging.export import export
from acclimate.fields.recommendation.merging.folder import (
    check_member,
    load_member,
    load_merged,
    save_member,
    save_merged,
)
from acclimate.fields.recommendation.merging.merged import Merged, merge
from acclimate.fields.recommendation.models.registry import build
from acclimate.models import digits_resnet
from acclimate.models.files import read_tensors, write_tensors

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
    next(tmp_path.glob("member-1-*")).unlink()
    with pytest.raises(FileNotFoundError, match="member-1"):
        load_merged(tmp_path)
    (tmp_path / "merged.json").write_text(json.dumps({"how": "logit_mean"}))
    with pytest.raises(ValueError, match="cannot be read"):
        load_merged(tmp_path)


def small(*seeds: int, **settings: Any) -> Merged:
    return merge([build("fnn", (5, 7), preset="small", seed=seed) for seed in seeds], **settings)


TWO = torch.tensor([[0, 5], [4, 11]])


def test_all_bits_come_back(tmp_path: Path) -> None:
    for seed in range(20):
        weights = torch.rand(3, generator=torch.Generator().manual_seed(seed))
        one = merge([nn.Linear(2, 2) for _ in range(3)], weights=weights)
        again = load_merged(save_merged(one, tmp_path), [nn.Linear(2, 2) for _ in range(3)])
        assert torch.equal(again.weights, one.weights)
    one = small(0, 1).double()
    one.members[1].float()
    again = load_merged(save_merged(one, tmp_path / "double"))
    assert again.weights.dtype == torch.float64
    for was, member in zip(one.members, again.members, strict=True):
        assert torch.equal(member(TWO), was(TWO)) and member(TWO).dtype == was(TWO).dtype
    assert again.members[0](TWO).dtype == torch.float64 and again.members[1](TWO).dtype == torch.float32


@pytest.mark.parametrize("moment", ["save_member", "write_index"])
def test_a_writer_that_is_ended_leaves_the_former_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    before, after = small(0, 1), small(2, 3)
    save_merged(before, tmp_path)
    real, calls = getattr(folder, moment), []

    def ended(*given: Any) -> None:
        calls.append(given)
        if len(calls) == (2 if moment == "save_member" else 1):
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr(folder, moment, ended)
    with pytest.raises(KeyboardInterrupt):
        save_merged(after, tmp_path)
    assert torch.equal(load_merged(tmp_path)(TWO), before(TWO))
    monkeypatch.undo()
    save_merged(after, tmp_path)
    assert torch.equal(load_merged(tmp_path)(TWO), after(TWO))
    assert len(list(tmp_path.iterdir())) == 3  # nothing is left of the others


def test_members_of_another_model_are_told_apart(tmp_path: Path) -> None:
    save_merged(small(0, 1), tmp_path / "one")
    save_merged(small(2, 3), tmp_path / "two")
    target = next((tmp_path / "one").glob("member-0-*"))
    target.write_bytes(next((tmp_path / "two").glob("member-0-*")).read_bytes())
    with pytest.raises(ValueError, match=r"member-0-\w+\.safetensors does not match its checksum"):
        load_merged(tmp_path / "one")


def signed(told: dict[str, Any]) -> bytes:
    """With the checksum that goes with it: SHA-256 of the rest, as JSON with sorted keys."""
    rest = {key: value for key, value in told.items() if key != "sha256"}
    return json.dumps({**rest, "sha256": sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [], "members": []},
        {"weights": {"a": 1}},
        {"weights": [1.0]},
        {"weights": 0.5},
        {"weights": [2.0, 2.0]},
        {"weights": [1.5, -0.5]},
        {"weights": [float("nan"), 1.0]},
        {"members": [1, 2]},
        {"members": [{"file": 1, "sha256": ""}, {"file": 2, "sha256": ""}]},
        {"members": [{"file": "../a", "sha256": ""}, {"file": "b", "sha256": ""}]},
        {"members": None},
        {"format": 99},
        {"format": 1},
        {"how": "x"},
        {"how": []},
        {"type": "int8"},
    ],
    ids=str,
)
def test_an_index_of_another_kind_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    path = save_merged(small(0, 1), tmp_path) / "merged.json"
    told = json.loads(path.read_bytes())
    path.write_bytes(signed(told))
    load_merged(tmp_path)  # the checksum of this file is the one that is expected
    path.write_bytes(signed({**told, **change}))
    with pytest.raises(ValueError, match=r"merged\.json cannot be read"):
        load_merged(tmp_path)


@pytest.mark.parametrize("data", [b"[1,2]", b"\xff\xfe", b"{}", b"1", b""])
def test_an_index_that_is_none_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = save_merged(small(0, 1), tmp_path) / "merged.json"
    told = json.loads(path.read_bytes())
    path.write_text(json.dumps({**told, "weights": [0.9, 0.1]}))
    with pytest.raises(ValueError, match=r"merged\.json cannot be read .*checksum"):
        load_merged(tmp_path)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"merged\.json cannot be read"):
        load_merged(tmp_path)


@pytest.mark.parametrize("read", [load_member, check_member])
def test_a_members_header_is_checked(tmp_path: Path, read: Any) -> None:
    path = tmp_path / "m.safetensors"
    save_member(build("fnn", (5, 7), preset="small"), path)
    read(path)
    tensors, header = read_tensors(path)
    made = json.loads(header["built"])
    for changed in ({**made, "sizes": [7, 5]}, {"name": "fnn"}):
        write_tensors(path, tensors, {**header, "built": json.dumps(changed)})
        with pytest.raises(ValueError, match=r"m\.safetensors .*checksum"):
            read(path)
    for built in ("{", "[]", "1", json.dumps({"name": "fnn"}), json.dumps({**made, "sizes": 3})):
        digest = sha256(built.encode()).hexdigest()
        write_tensors(path, tensors, {"built": built, "built_sha256": digest})
        with pytest.raises(ValueError, match=r"m\.safetensors"):
            read(path)


def test_a_model_that_cannot_be_built_is_told_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_member(build("fnn", (5, 7), preset="small"), path)
    tensors, header = read_tensors(path)
    made = json.loads(header["built"])
    for change in ({"name": "zz"}, {"width": "ten"}, {"options": {"what": 1}}, {"sizes": [5, "x"]}, {"sizes": []}):
        built = json.dumps({**made, **change})
        write_tensors(path, tensors, {"built": built, "built_sha256": sha256(built.encode()).hexdigest()})
        with pytest.raises(ValueError, match=r"m\.safetensors tells of a model that cannot be built"):
            load_member(path)


def test_an_export_that_fails_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(b"former")

    def ended(program: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.export, "save", ended)
    with pytest.raises(KeyboardInterrupt):
        export(nn.Linear(2, 2), path, torch.zeros(2, 2))
    assert path.read_bytes() == b"former" and list(tmp_path.iterdir()) == [path]


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
