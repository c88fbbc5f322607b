"""Promise: a state file resumed in a new process continues bit for bit as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import acclimate
from acclimate.core.method import Method

from .declarations import subjects
from .models import MODELS
from .tools import answers, assert_same, book, flat

BEFORE, AFTER = 3, 4


def _variant(label: str) -> Method | None:
    method = subjects()[label][0]
    return None if isinstance(method, str) else method


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save after some batches, for each method; then one new process continues them all."""
    folder = tmp_path_factory.mktemp("resumed")
    for label, (method, declared) in subjects().items():
        factory, batch = MODELS[declared.model]
        adapted = acclimate.adapt(factory(), method, seed=17)
        answers(adapted, map(batch, range(BEFORE)))
        adapted.save(folder / f"{label}.state")
    (folder / "labels.json").write_text(json.dumps(list(subjects())))
    code = f"from {__package__}.test_resume import proceed; proceed({str(folder)!r})"
    roots = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path[:0] = {roots!r}; {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert not done.stdout and not done.stderr
    return folder


def proceed(folder: str) -> None:
    """In the new process: load each state, continue, write down answers and state."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    for label in json.loads((Path(folder) / "labels.json").read_text()):
        factory, batch = MODELS[subjects()[label][1].model]
        adapted = acclimate.load(factory(), Path(folder) / f"{label}.state", method=_variant(label))
        found = answers(adapted, map(batch, range(BEFORE, BEFORE + AFTER)))
        tensors = {f"answer {n}": tensor for n, output in enumerate(found) for tensor in flat(output)}
        exported, scalars = adapted.state.table.export()
        tensors |= {f"state {name}": tensor.detach().clone() for name, tensor in exported.items()}
        save_file(tensors, Path(folder) / f"{label}.out", {"scalars": json.dumps(scalars)})


@pytest.mark.parametrize("label", subjects())
def test_a_new_process_continues_exactly(label: str, resumed: Path) -> None:
    method, declared = subjects()[label]
    factory, batch = MODELS[declared.model]
    never_stopped = acclimate.adapt(factory(), method, seed=17)
    expected = answers(never_stopped, map(batch, range(BEFORE + AFTER)))[BEFORE:]
    tensors = load_file(resumed / f"{label}.out")
    assert_same([tensors[f"answer {n}"] for n in range(AFTER)], expected, "answers of the new process")
    exported, scalars = never_stopped.state.table.export()
    found = {name.removeprefix("state "): t for name, t in tensors.items() if name.startswith("state ")}
    assert found.keys() == exported.keys()
    for name, tensor in exported.items():
        assert_same(found[name], tensor, f"state {name} of the new process")
    assert scalars["counters"]["batches"] == BEFORE + AFTER


@pytest.mark.parametrize("label", subjects())
def test_the_file_holds_the_whole_state(label: str, resumed: Path) -> None:
    """Loading alone, in this process, gives the state that was saved, tensor by tensor."""
    method, declared = subjects()[label]
    factory, batch = MODELS[declared.model]
    loaded = acclimate.load(factory(), resumed / f"{label}.state", method=_variant(label))
    twin = acclimate.adapt(factory(), method, seed=17)
    answers(twin, map(batch, range(BEFORE)))
    assert_same(book(loaded), book(twin), "loaded state")
