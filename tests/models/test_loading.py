"""Models by name, from modules and from files."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from acclimate.models import digits_resnet, load_model

CODE = """
from dataclasses import dataclass
import torch
from sibling import CLASSES

@dataclass
class Options:
    classes: int = CLASSES

def build():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, Options().classes)).train()

def number():
    return 7

def needs(classes):
    return None

def broken():
    raise TypeError("my own error")

ready = build()
constant = 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_model_file.py").write_text(CODE)
    (tmp_path / "sibling.py").write_text("CLASSES = 4")
    monkeypatch.chdir(tmp_path)
    for name in ("sibling", "my_model_file", "_acclimate_model_my_model_file"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "my_model_file.py"


@pytest.mark.parametrize("name", ["build", "ready"])
def test_from_a_file(code: Path, name: str):
    path = list(sys.path)
    model = load_model(f"{code}:{name}", classes=4, image_shape=(3, 8, 8))
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 4)
    assert not model.training
    assert sys.path == path
    assert "my_model_file" not in sys.modules


def test_from_a_module_in_the_current_folder(code: Path):
    path = list(sys.path)
    assert load_model("my_model_file:build")(torch.zeros(1, 3, 8, 8)).shape == (1, 4)
    assert sys.path == path


def test_with_weights(code: Path, tmp_path: Path):
    weights = {"1.weight": torch.ones(4, 192), "1.bias": torch.zeros(4)}
    save_file(weights, tmp_path / "w.safetensors")
    model = load_model(f"{code}:build", tmp_path / "w.safetensors")
    assert model(torch.ones(1, 3, 8, 8)).tolist() == [[192.0] * 4]
    save_file({"1.weight": torch.ones(4, 192)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"does not fit Sequential .*missing: 1 \(1\.bias\)"):
        load_model(f"{code}:build", tmp_path / "w.safetensors")


def test_built_in_with_weights(tmp_path: Path):
    source = digits_resnet(seed=5)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = load_model("digits-resnet", tmp_path / "w.safetensors", classes=10)
    assert torch.equal(model.state_dict()["conv1.weight"], source.conv1.weight)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digits-resnt", "no model 'digits-resnt'. Did you mean 'digits-resnet'.*module:function"),
        ("my_model_file.py:biuld", "has no 'biuld'; it has .*Did you mean 'build'"),
        ("my_model_file.py:number", "returned int; expected a torch.nn.Module"),
        ("my_model_file.py:constant", "is of type int; expected a function"),
        ("my_model_file.py:needs", "cannot be called without arguments .*'classes'.*wrap it"),
        ("no_such_module:build", "no module 'no_such_module' .*file.py:function"),
        ("sibling:build", "it has nothing that can be called"),
    ],
)
def test_what_is_no_model_is_refused(code: Path, spec: str, message: str):
    with pytest.raises(ValueError, match=message):
        load_model(spec)


def test_errors_of_the_users_code_are_named_in_one_line(code: Path):
    """The original is the cause, for whoever asks for the whole traceback; imports name what is missing."""
    with pytest.raises(ValueError, match=r"fails by itself: TypeError: my own error") as caught:
        load_model(f"{code}:broken")
    assert isinstance(caught.value.__cause__, TypeError)
    assert "\n" not in str(caught.value)
    (code.parent / "sibling.py").unlink()
    for name in ("sibling", "my_model_file"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    path = list(sys.path)
    with pytest.raises(ModuleNotFoundError, match="sibling"):
        load_model(f"{code}:build")
    with pytest.raises(ModuleNotFoundError, match="sibling"):
        load_model("my_model_file:build")
    assert sys.path == path and "_acclimate_model_my_model_file" not in sys.modules


def test_missing_files_are_named(code: Path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.py"):
        load_model("nowhere.py:build")


def test_the_number_of_classes_is_checked(code: Path):
    with pytest.raises(ValueError, match=r"answers two images with \[2, 4\]; expected logits \[2, 10\]"):
        load_model(f"{code}:build", classes=10, image_shape=(3, 8, 8))
    with pytest.raises(ValueError, match=r"does not take images \[B, 3, 32, 32\]"):
        load_model(f"{code}:build", classes=4)
