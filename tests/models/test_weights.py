"""Weights which fit, and every way not to fit."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from acclimate.models import digits_resnet, load_weights
from acclimate.models.files import read_tensors, write_tensors


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {key: value.clone() for key, value in digits_resnet(seed=1).state_dict().items()}


def test_weights_are_loaded(tmp_path: Path, tensors: dict[str, Tensor]):
    save_file(tensors, tmp_path / "w.safetensors")
    model = digits_resnet(tmp_path / "w.safetensors")
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())


def test_old_checkpoints_lack_counters(tmp_path: Path, tensors: dict[str, Tensor]):
    save_file({k: v for k, v in tensors.items() if "num_batches" not in k}, tmp_path / "w.safetensors")
    assert torch.equal(digits_resnet(tmp_path / "w.safetensors").conv1.weight, tensors["conv1.weight"])


def test_half_precision_is_widened(tmp_path: Path, tensors: dict[str, Tensor]):
    save_file({k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}, tmp_path / "w.safetensors")
    model = digits_resnet(tmp_path / "w.safetensors")
    assert model.conv1.weight.dtype == torch.float32
    assert torch.equal(model.conv1.weight, tensors["conv1.weight"].half().float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if "bn1" not in k}, r"missing: 16 \(bn1\.weight, .*, \.\.\.\)"),
        (lambda t: {**t, "extra": torch.zeros(1)}, r"unexpected: 1 \(extra\)"),
        (lambda t: {**t, "linear.bias": torch.zeros(7)}, r"another shape: 1 \(linear\.bias: \[7\] instead of \[10\]"),
        (lambda t: {**t, "linear.bias": torch.zeros(10).long()}, r"another type: 1 \(linear\.bias: torch\.int64"),
        (lambda t: {**t, "linear.bias": torch.full((10,), torch.nan)}, r"not finite: 1 \(linear\.bias\)"),
        (lambda t: {f"other.{k}": v for k, v in t.items()}, r"missing: 37 .*unexpected: 44 \(other\.bn1"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(tmp_path: Path, tensors: dict[str, Tensor], change, message: str):
    save_file(change(tensors), tmp_path / "w.safetensors")
    model = digits_resnet()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / "w.safetensors")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt", "w.safetensors", "w.weights"])
def test_checkpoints_of_training_are_never_pickles(tmp_path: Path, tensors: dict[str, Tensor], name: str):
    torch.save(tensors, tmp_path / name)
    with pytest.raises(ValueError, match=r"pickle .*safetensors\.torch\.save_file"):
        read_tensors(tmp_path / name)


def test_damaged_files_are_refused(tmp_path: Path, tensors: dict[str, Tensor]):
    path = tmp_path / "w.safetensors"
    save_file(tensors, path)
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[1:], b"nothing of the kind" * 2000):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            load_weights(digits_resnet(), path)
    with pytest.raises(FileNotFoundError, match=r"no file of weights .*nowhere"):
        load_weights(digits_resnet(), tmp_path / "nowhere.safetensors")


def test_altered_tensors_do_not_match_their_checksum(tmp_path: Path, tensors: dict[str, Tensor]):
    path = tmp_path / "sub/w.safetensors"
    write_tensors(path, tensors, {"note": "mine"})
    found, metadata = read_tensors(path)
    assert metadata["note"] == "mine"
    assert found.keys() == tensors.keys() and all(torch.equal(found[k], tensors[k]) for k in found)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="do not match their checksum"):
        read_tensors(path)


def test_an_altered_header_does_not_match_its_checksum(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {"tree": '{"lr": 0.1}', "sha256": "stale", "header_sha256": "stale"})
    assert read_tensors(path)[1]["tree"] == '{"lr": 0.1}'
    raw = path.read_bytes()
    assert raw.count(b"0.1") == 1
    path.write_bytes(raw.replace(b"0.1", b"0.3"))
    with pytest.raises(ValueError, match=r"header of .* does not match its checksum"):
        read_tensors(path)


def test_files_whose_header_has_no_checksum_are_read(tmp_path: Path):
    """As they were written before: a SHA-256 of names, types, shapes and numbers only."""
    tensor = torch.ones(3)
    checksum = hashlib.sha256(b"a torch.float32 (3,)" + tensor.numpy().tobytes()).hexdigest()
    for told, good in ((checksum, True), ("0" * 64, False)):
        text = json.dumps({"note": "mine", "sha256": told})
        save_file({"a": tensor}, tmp_path / "w.safetensors", metadata={"acclimate": text})
        if good:
            assert read_tensors(tmp_path / "w.safetensors")[1] == {"note": "mine", "sha256": told}
            continue
        with pytest.raises(ValueError, match=r"tensors of .* do not match"):
            read_tensors(tmp_path / "w.safetensors")


def test_nothing_is_left_behind_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("acclimate.models.files.save_file", full)
    with pytest.raises(OSError, match="no space"):
        write_tensors(tmp_path / "w.safetensors", {}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int):
    """The first bytes of a safetensors file are the length of its header, in eights."""
    path, filler = tmp_path / "w.safetensors", ""
    while True:
        save_file({"a": torch.ones(3)}, path, metadata={"filler": filler})
        found = int.from_bytes(path.read_bytes()[:8], "little")
        if found == length:
            break
        assert found < length
        filler += "x"
    assert torch.equal(read_tensors(path)[0]["a"], torch.ones(3))
