"""State files: what is damaged, foreign or hostile is refused in words, and nothing changes."""

from __future__ import annotations

import ast
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import acclimate
from acclimate.methods.tent import Tent

from .models import MODELS
from .tools import answers, assert_same, book

FACTORY, BATCH = MODELS["batch_norm"]
KEY = "acclimate"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    adapted = acclimate.adapt(FACTORY(), "tent", normalization="ema")
    answers(adapted, map(BATCH, range(2)))
    adapted.save(tmp_path / "state")
    return tmp_path / "state"


def _parts(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[KEY])  # noqa: SIM118


def _rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    tensors, header = _parts(path)
    change(tensors, header)
    save_file(tensors, path, {KEY: json.dumps(header)})


def _refused(path: Path, match: str | None = None, **options: Any) -> None:
    """ValueError with a sentence in it, and the model is as it was."""
    model = FACTORY()
    with pytest.raises(ValueError, match=match) as caught:
        acclimate.load(model, path, **options)
    assert type(caught.value) is ValueError
    assert len(str(caught.value).split()) > 5
    twin = FACTORY()
    for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert_same(ours, theirs, name)


def test_round_trip_is_small_and_readable_by_others(saved: Path) -> None:
    """Plain safetensors with one JSON header that names its format, method, base and versions."""
    tensors, header = _parts(saved)
    assert header["format"] == 1 and header["method"]["name"] == "tent" and header["torch"] == torch.__version__
    assert "stem.weight" not in tensors, "untouched weights are not saved"
    assert_same(
        tensors["weights.norm1.weight"], acclimate.load(FACTORY(), saved).state.weights["norm1.weight"], "a weight"
    )


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_truncated(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    _refused(saved)


def test_longer(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"\0" * 8)
    _refused(saved)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_of_the_header(saved: Path, seed: int) -> None:
    """One flipped bit of the header: refused, or (in a number that cannot be checked) loaded without harm."""
    data = bytearray(saved.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    generator = torch.Generator().manual_seed(seed)
    place = int(torch.randint(0, 8 + length, (), generator=generator))
    data[place] ^= 1 << int(torch.randint(0, 8, (), generator=generator))
    saved.write_bytes(data)
    try:
        loaded = acclimate.load(FACTORY(), saved)
    except ValueError as error:
        assert str(error)
    else:
        assert bool(loaded(BATCH(5)).isfinite().all())


def test_enormous_header(saved: Path) -> None:
    saved.write_bytes(struct.pack("<Q", 2**62) + saved.read_bytes()[8:])
    _refused(saved)


@pytest.mark.parametrize(
    "name",
    [
        "weights.norm1.weight",
        "normalization.norm1.running_mean",
        "optimizer/state/norm1.weight/exp_avg",
        "optimizer/state/norm1.weight/step",
    ],
)
def test_missing_tensor(saved: Path, name: str) -> None:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        del tensors[name]

    _rewrite(saved, change)
    _refused(saved)


@pytest.mark.parametrize(
    "name",
    [
        "weights.norm1.weight",
        "normalization.norm1.running_mean",
        "optimizer/state/norm1.weight/exp_avg",
        "optimizer/state/norm1.weight/step",
    ],
)
@pytest.mark.parametrize("how", ["shape", "type", "axes"])
def test_wrong_tensor(saved: Path, name: str, how: str) -> None:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        tensor = tensors[name]
        wrong = {"shape": torch.zeros(3), "type": tensor.double(), "axes": torch.zeros(1, 1, *tensor.shape)}
        tensors[name] = wrong[how].contiguous()

    _rewrite(saved, change)
    _refused(saved)


@pytest.mark.parametrize(
    "name",
    [
        "stranger",
        "optimizer/state/stranger/exp_avg",
        "optimizer/state/norm1.weight",
        "optimizer/group/7/lr",
        "optimizer/group/0/lr",
        "optimizer",
        "optimizer/state",
        "other/state/norm1.weight/exp_avg",
        "generator/views",
        "stem.weight",
    ],
)
def test_unknown_tensor(saved: Path, name: str) -> None:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        tensors[name] = torch.zeros(2)

    _rewrite(saved, change)
    _refused(saved)


def test_damaged_generator(tmp_path: Path) -> None:
    adapted = acclimate.adapt(FACTORY(), "palm")
    adapted.save(tmp_path / "state")

    for wrong in (torch.zeros(3, dtype=torch.uint8), torch.zeros(3)):

        def change(tensors: dict[str, Tensor], header: dict[str, Any], wrong: Tensor = wrong) -> None:
            tensors["generator/views"] = wrong

        _rewrite(tmp_path / "state", change)
        _refused(tmp_path / "state")


def _without(*path: str) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        place = header
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def _with(value: Any, *path: str) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    def change(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        place = header
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "path",
    [
        ("format",),
        ("method",),
        ("answer",),
        ("seed",),
        ("scalars",),
        ("base",),
        ("method", "name"),
        ("scalars", "counters"),
        ("scalars", "counters", "batches"),
        ("scalars", "optimizers"),
        ("scalars", "optimizers", "optimizer"),
        ("scalars", "optimizers", "optimizer", "groups"),
        ("scalars", "optimizers", "optimizer", "states"),
    ],
    ids=".".join,
)
def test_header_lacks_a_field(saved: Path, path: tuple[str, ...]) -> None:
    _rewrite(saved, _without(*path))
    _refused(saved)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("one", ("format",)),
        (None, ("format",)),
        (0, ("format",)),
        (-1, ("format",)),
        ("tent", ("method",)),
        ("nobody", ("method", "name")),
        (3, ("method", "name")),
        (["tent"], ("method", "name")),
        (-1.0, ("method", "learning_rate")),
        ("fast", ("method", "learning_rate")),
        (None, ("method", "learning_rate")),
        (1.0, ("method", "unheard_of")),
        ({"name": "nobody"}, ("method", "normalization")),
        ({}, ("method", "normalization")),
        ("sometimes", ("answer",)),
        ("x", ("seed",)),
        ([], ("scalars",)),
        ([], ("scalars", "counters")),
        ("many", ("scalars", "counters", "batches")),
        (-5, ("scalars", "counters", "batches")),
        ([], ("scalars", "optimizers")),
        ([], ("scalars", "optimizers", "optimizer")),
        ([], ("scalars", "optimizers", "optimizer", "groups")),
        ([7], ("scalars", "optimizers", "optimizer", "groups")),
        ({"stranger": {"step": 1}}, ("scalars", "optimizers", "optimizer", "states")),
        (7, ("base",)),
        ("0" * 64, ("base",)),
    ],
    ids=str,
)
def test_header_is_garbled(saved: Path, value: Any, path: tuple[str, ...]) -> None:
    _rewrite(saved, _with(value, *path))
    _refused(saved)


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '"x"', "{", "[" * 100_000])
def test_header_is_no_record(saved: Path, text: str) -> None:
    tensors, _ = _parts(saved)
    save_file(tensors, saved, {KEY: text})
    _refused(saved)


def test_newer_format_asks_for_an_update(saved: Path) -> None:
    _rewrite(saved, _with(2, "format"))
    _refused(saved, "[Uu]pdate")


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
        _refused(saved, "saved with", method=method)
    acclimate.load(FACTORY(), saved, method=Tent(normalization="ema"))


def test_plain_safetensors_are_refused(tmp_path: Path) -> None:
    save_file(FACTORY().state_dict(), tmp_path / "weights.safetensors")
    _refused(tmp_path / "weights.safetensors", "no adaptation")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(FACTORY().state_dict(), tmp_path / "weights.pt")
    _refused(tmp_path / "weights.pt")


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
    _refused(tmp_path / "state", "instance")
    assert_same(book(acclimate.load(FACTORY(), tmp_path / "state", method=method)), book(adapted), "state")


@pytest.mark.parametrize("call", ["os.fsync", "os.replace", "pathlib.Path.replace", "pathlib.Path.open"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_crash_while_saving_leaves_the_old_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: type[BaseException]
) -> None:
    """The old file stays whole, nothing else stays behind, and the adaptation goes on."""
    adapted = acclimate.load(FACTORY(), saved)
    adapted(BATCH(7))
    old, before = saved.read_bytes(), book(adapted)

    def crash(*args: Any, **kwargs: Any) -> None:
        raise error("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(call, crash)
        if call == "os.replace":
            patch.setattr("pathlib.Path.replace", crash)
        with pytest.raises(error):
            adapted.save(saved)
    assert saved.read_bytes() == old
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]
    assert_same(book(adapted), before, "state after a failed save()")
    adapted.save(saved)
    assert saved.read_bytes() != old
    assert_same(book(acclimate.load(FACTORY(), saved)), before, "state after a second try")


def test_saving_over_a_directory_or_below_a_file(saved: Path, tmp_path: Path) -> None:
    adapted = acclimate.load(FACTORY(), saved)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    for path in (tmp_path / "folder", saved / "below"):
        with pytest.raises(OSError):
            adapted.save(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "state"]


def test_saved_file_follows_the_umask(saved: Path) -> None:
    """Another process of the same service may read it, as any other file written there."""
    plain = saved.parent / "plain"
    plain.touch()
    assert oct(saved.stat().st_mode) == oct(plain.stat().st_mode)


def test_models_with_extra_state_can_be_saved(tmp_path: Path) -> None:
    """`get_extra_state` puts things in a state dict that are no tensors."""

    class Extra(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = FACTORY()

        def get_extra_state(self) -> dict[str, int]:
            return {"version": 3}

        def set_extra_state(self, state: dict[str, int]) -> None: ...

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    adapted = acclimate.adapt(Extra(), "tent")
    adapted(BATCH(0))
    adapted.save(tmp_path / "state")
    assert_same(book(acclimate.load(Extra(), tmp_path / "state")), book(adapted), "state")


def test_the_files_name_may_be_a_string_with_a_tilde_free_path(saved: Path) -> None:
    shutil.copy(saved, saved.parent / "copy")
    assert acclimate.load(FACTORY(), str(saved.parent / "copy")).state.batches == 2
    assert acclimate.load(FACTORY(), os.fspath(saved)).state.batches == 2


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
