"""State files of another model, another method or another kind are refused in words."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import acclimate
from acclimate.methods.tent import Tent

from .models import MODELS
from .state_files import BATCH, FACTORY, refused
from .tools import answers, assert_same, book


def test_another_base_is_refused_unless_on_purpose(saved: Path) -> None:
    def other() -> torch.nn.Module:
        model = FACTORY()
        with torch.no_grad():
            model.head.bias[0] += 1e-6
        return model

    with pytest.raises(ValueError, match="another model"):
        acclimate.load(other(), saved)
    loaded = acclimate.load(other(), saved, strict=False)
    assert_same(
        loaded.state.weights["norm1.weight"], acclimate.load(FACTORY(), saved).state.weights["norm1.weight"], "a weight"
    )
    assert not torch.equal(loaded.unwrap().head.bias, FACTORY().head.bias)


def test_another_architecture_is_refused(saved: Path) -> None:
    for name in ("group_norm", "vit", "no_norm"):
        with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
            acclimate.load(MODELS[name][0](), saved, strict=False)


def test_another_method_is_refused(saved: Path) -> None:
    for method in (Tent(), Tent(normalization="ema", learning_rate=1e-4), acclimate.Method.__subclasses__()[0]()):
        refused(saved, "saved with", method=method)
    acclimate.load(FACTORY(), saved, method=Tent(normalization="ema"))


def test_plain_safetensors_are_refused(tmp_path: Path) -> None:
    save_file(FACTORY().state_dict(), tmp_path / "weights.safetensors")
    refused(tmp_path / "weights.safetensors", "no adaptation")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(FACTORY().state_dict(), tmp_path / "weights.pt")
    refused(tmp_path / "weights.pt")


def test_no_pickle_anywhere() -> None:
    """Neither pickle nor its relatives are imported, and torch.load is never called on a state."""
    root = Path(acclimate.__file__).parent
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & forbidden, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")
                assert safe == "True", f"{path}: torch.load without weights_only=True"


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises((FileNotFoundError, ValueError), match=str(tmp_path)):
            acclimate.load(FACTORY(), path)


def test_objects_that_no_file_holds_are_asked_for(tmp_path: Path) -> None:
    """A method built with a function is saved, and loaded only with the same method passed again."""
    method = Tent(optimizer=torch.optim.AdamW)
    adapted = acclimate.adapt(FACTORY(), method)
    answers(adapted, map(BATCH, range(2)))
    adapted.save(tmp_path / "state")
    refused(tmp_path / "state", "instance")
    assert_same(book(acclimate.load(FACTORY(), tmp_path / "state", method=method)), book(adapted), "state")
