"""The house: imports point one way, the package is light, and one file is enough to add a method."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import acclimate

ROOT = Path(acclimate.__file__).parent
TESTS = Path(__file__).parent

FLOORS = (
    {"functional", "anatomy"},
    {"core"},
    {"compression", "links", "wire"},
    {"parts", "normalization", "memory"},
    {"methods"},
    {"guard"},
    {"adapted", "guarded", "measured"},
    {"entry"},
    {"experiment", "serve"},
    {"fields"},
    {"cli"},
)
"""From the ground up: a module imports from its own floor and those below it."""

UPPER = {"experiment", "serve", "fields", "cli"}
"""Floors that use the library as others do, and what stands aside."""

ASIDE = {"streams": {"functional"}, "models": {"functional", "streams"}}
"""Needed by experiments, in need of almost nothing."""

ROOF = {"__init__"}
"""Stands on everything."""

LONGEST = 400


def _modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names imported at run time, by statement or by importlib with a literal name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _imports(other)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _imports(node)


def _allowed(part: str) -> set[str] | None:
    if part in ROOF:
        return None
    if part in ASIDE:
        return ASIDE[part] | {part}
    level = next((number for number, floor in enumerate(FLOORS) if part in floor), None)
    assert level is not None, f"{part} stands on no floor: give it one in FLOORS, ASIDE or ROOF"
    below = set[str]().union(*FLOORS[: level + 1])
    return below | ({*ASIDE, "__init__"} if part in UPPER else set())


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    allowed = _allowed(_part(path))
    if allowed is None:
        return
    for name in _imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] != "acclimate":
            continue
        found = parts[1] if len(parts) > 1 else "__init__"
        if found not in {_part(each) for each in _modules()}:
            found = "__init__"
        assert found in allowed, f"{path.relative_to(ROOT)} imports {name}; allowed: {', '.join(sorted(allowed))}"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_keeps_its_manners(path: Path) -> None:
    """No printing, no absolute paths, no file of more than 400 lines."""
    text = path.read_text()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and _part(path) not in ("cli",):
            assert node.func.id != "print", f"line {node.lineno} prints"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = re.search(r"(?:^|[\s'\"`=(])/(home|work|root|tmp|mnt|Users|srv)/", node.value)
            assert not found, f"line {node.lineno} holds an absolute path: {node.value[:60]}"
    assert len(text.splitlines()) <= LONGEST, f"{len(text.splitlines())} lines"


def _python(code: str, *paths: Path, flags: tuple[str, ...] = ()) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT.parent)))}
    done = subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


def test_import_pulls_only_torch_numpy_and_safetensors() -> None:
    code = """
        import json, sys
        import numpy, torch, safetensors, safetensors.torch
        import importlib.metadata
        before = {name.partition(".")[0] for name in sys.modules}
        import acclimate
        after = {name.partition(".")[0] for name in sys.modules}
        print(json.dumps(sorted(after - before - set(sys.stdlib_module_names))))
    """
    assert json.loads(_python(code)) == ["acclimate"]


def test_import_reaches_no_field() -> None:
    code = """
        import sys, acclimate
        heavy = ("fields", "streams", "models", "experiment", "serve", "cli")
        print([name for name in sys.modules if name.startswith(tuple(f"acclimate.{part}" for part in heavy))])
    """
    assert _python(code).strip() == "[]"


def test_import_is_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 50 ms of processor time beyond torch, best of five processes, as after the first import: compiled.

    Processor time rather than wall time, and the best of several, because the machine is shared; a cold
    disk or a busy neighbour then adds nothing.
    """
    code = """
        import time, torch
        start = time.process_time()
        import acclimate
        print(time.process_time() - start)
    """
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    best = min(float(_python(code)) for _ in range(5))
    assert best < 0.05, f"{best * 1e3:.0f} ms"


PACKAGE = '''
"""A package of somebody else's with a method of their own, all in this one file."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from acclimate import Card, Cost, Method, State
from acclimate.anatomy import affine_norms
from acclimate.core.method import methods
from acclimate.functional import entropy


@methods.register("dummy")
@dataclass(frozen=True, kw_only=True)
class Dummy(Method):
    """Lower the entropy of noisy answers."""

    card: ClassVar[Card] = Card(
        summary="a test", paper="none", needs=frozenset({"norm", "backward"}), fails_when="always"
    )
    learning_rate: float = 1e-3

    def setup(self, state: State) -> None:
        state.adapt(affine_norms, "normalisation weights")
        state.optimizer("adam", self.learning_rate)
        state.generator("noise")

    def loss(self, state: State, x: Tensor, logits: Tensor) -> Tensor:
        noise = logits.detach().new_empty(logits.shape).normal_(0, 0.1, generator=state.generator("noise"))
        return entropy(logits + noise).mean()

    def cost(self) -> Cost:
        return Cost(forwards=1, backwards=1, copies={"weights": 1, "optimizer": 2})
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """As pip would install it: one module and its metadata with one entry point."""
    (tmp_path / "acclimate_dummy.py").write_text(PACKAGE)
    info = tmp_path / "acclimate_dummy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acclimate-dummy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[acclimate.methods]\ndummy = acclimate_dummy:Dummy\n")
    return tmp_path


def test_a_method_in_one_file_of_another_package_is_found_and_keeps_every_promise(package: Path) -> None:
    code = """
        import warnings
        warnings.simplefilter("error")
        import torch
        torch.set_num_threads(1)
        import acclimate
        from conformance import checks
        from conformance.declarations import subjects
        from conformance.models import MODELS
        assert "dummy" in acclimate.list_methods() and "dummy" in acclimate.list_methods(needs_backward=True)
        assert "dummy" in subjects(), "covered without any declaration"
        failed = {}
        for check in checks.ALL:
            try:
                check("dummy", *MODELS["batch_norm"])
            except Exception as error:
                failed[check.__name__] = repr(error)[:300]
        assert len(checks.ALL) > 20 and not failed, failed
    """
    _python(code, package, TESTS)


def test_a_broken_package_does_not_take_the_others_down(package: Path) -> None:
    """An entry point that fails to import is reported by a warning that names it; every other method works."""
    (package / "acclimate_dummy.py").write_text("raise ImportError('broken on purpose')")
    code = """
        import warnings
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            import acclimate
            found = acclimate.list_methods()
        assert "tent" in found and "dummy" not in found
        assert any("dummy" in str(warning.message) for warning in seen)
    """
    _python(code, package)


def test_the_package_is_silent_at_import() -> None:
    assert _python("import acclimate", flags=("-W", "error")) == ""
