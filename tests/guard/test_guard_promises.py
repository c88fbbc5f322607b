"""Every guard over every kind of method: state, saving, refused steps, frozen answers, as without a guard."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from awake import AWAKE, MORE

import acclimate
from acclimate.core.guard import Chain, build_guard, guards
from conformance.declarations import subjects
from conformance.models import MODELS, images
from conformance.tools import Fault, Faulty, answers, assert_same, bits, book, source_answer, verdict_deferred

METHODS = ("tent", "bn", "palm", "rotta", "lame")
SUBJECTS = subjects()
GUARDS = {**AWAKE, **MORE}
FACTORY = MODELS["batch_norm"][0]
WARM = 4
QUICK = {"tent", "rotta"}
PAIRS = [
    pytest.param(guard, method, marks=() if method in QUICK or guard == "default" else pytest.mark.slow)
    for guard, method in itertools.product(GUARDS, METHODS)
]


def test_no_guard_is_forgotten():
    assert set(guards.classes()) == {*AWAKE, "chain"}
    assert all(guard.name == name for name, guard in AWAKE.items())


def _unwatched(adapted: acclimate.Adapted) -> dict[str, object]:
    """The state, but for what the guard has seen and drawn."""
    tensors, scalars = adapted.state.table.export()
    seen = ("guard.", "generator/guard")
    kept = {name: tensor.clone() for name, tensor in tensors.items() if not name.startswith(seen)}
    return {**kept, "scalars": scalars}


@pytest.mark.parametrize(("guard", "method"), PAIRS)
def test_guard_promises(guard: str, method: str, tmp_path: Path) -> None:
    fault = Fault()

    def made() -> acclimate.Adapted:
        return acclimate.adapt(Faulty(FACTORY(), fault), SUBJECTS[method][0], guard=GUARDS[guard])

    adapted = made()
    fresh = book(adapted)
    first = answers(adapted, map(images, range(WARM)))
    assert all(bool(answer.isfinite().all()) for answer in first)
    assert adapted.tally["judged"] == 8 * WARM
    after, tally = book(adapted), adapted.tally
    adapted.save(tmp_path / "state")
    adapted.snapshot("here")

    with adapted.frozen():  # changes nothing, and says the same twice
        assert_same(adapted(images(20)), adapted(images(20)), "frozen answers")
    adapted.memory(images(20))
    assert_same(book(adapted), after, "state after frozen answers and measured memory")

    broken = torch.full_like(images(0), float("nan"))  # no row is fit
    assert_same(adapted(broken), source_answer(FACTORY, broken), "answers to a bad batch")
    assert_same(book(adapted), after, "state after a bad batch")

    before = _unwatched(adapted)
    fault.gradient = float("nan")  # the step is refused, where there is one
    adapted(images(21))
    fault.gradient = None
    if adapted.last.backwards:
        assert adapted.last.verdict.refused and adapted.last.guard is not None
        forgotten = adapted.tally["forgotten"] > tally["forgotten"] or adapted.tally["recovered"] > tally["recovered"]
        if not forgotten:
            assert_same(_unwatched(adapted), before, "state after a refused step, but for the guard's own")
        assert adapted.tally["judged"] == tally["judged"] + 8
    adapted.restore("here")
    assert adapted.tally == tally

    fault.countdown = 1
    with pytest.raises(RuntimeError, match="on purpose"):
        adapted(images(22))
    fault.countdown = 0
    assert_same(book(adapted), after, "state after an error")

    loaded = acclimate.load(Faulty(FACTORY(), fault), tmp_path / "state", method=_given(method))
    assert loaded.guard == adapted.guard and loaded.tally == tally
    assert_same(book(loaded), after, "loaded state")
    mixed = images(23)
    mixed[3] = float("inf")
    good = torch.arange(8) != 3
    assert_same(adapted(mixed)[good], loaded(images(23)[good]), "answers to seven good rows")
    assert_same(book(adapted), book(loaded), "state after seven good rows of eight")
    assert_same(
        answers(adapted, [images(24), images(25)]), answers(loaded, [images(24), images(25)]), "resumed answers"
    )
    assert_same(book(adapted), book(loaded), "resumed state")
    assert adapted.tally == loaded.tally

    adapted.restore("here")
    assert_same(book(adapted), after, "restored state")
    for each, what in ((adapted, "reset"), (loaded, "reset after loading")):
        each.reset()
        assert_same(book(each), fresh, f"state after {what}")
    with verdict_deferred():
        assert_same(answers(adapted, map(images, range(WARM))), first, "answers of a device")
    assert_same(book(adapted), after, "state of a device")
    assert_same(
        [*adapted.unwrap().model.state_dict().values()], [*FACTORY().state_dict().values()], "the source's tensors"
    )


def _given(method: str):
    return None if isinstance(SUBJECTS[method][0], str) else SUBJECTS[method][0]


@pytest.mark.parametrize("guard", GUARDS)
def test_guards_of_these_tests_are_awake(guard: str) -> None:
    """On streams that no guard minds the promises would prove little."""
    adapted = acclimate.adapt(FACTORY(), "tent", guard=GUARDS[guard])
    before = {name: bits(slot.tensor) for name, slot in adapted.state.table.slots.items() if slot.host}
    reasons = []
    for number in range(WARM):
        adapted(images(number))
        reasons.append(adapted.last.guard.reason)
    assert any(reasons)
    moved = [name for name in before if bits(adapted.state.table.slots[name].tensor) != before[name]]
    assert moved
    if adapted.guard.keeps():
        assert all(f"guard.good.{name}" in adapted.state.table.slots for name in ("weights.norm1.weight",))


@pytest.mark.parametrize("pair", list(itertools.combinations(AWAKE, 2)), ids="+".join)
def test_pairs_of_guards(pair: tuple[str, str], tmp_path: Path) -> None:
    """Both judge every batch, of each decision the more careful counts, and a file holds both."""
    chain = Chain(members=tuple(AWAKE[name] for name in pair))
    adapted = acclimate.adapt(FACTORY(), "tent", guard=chain)
    assert [part.name for part in adapted.guard.parts()] == list(pair)
    assert bool(torch.cat(answers(adapted, map(images, range(2)))).isfinite().all())
    adapted.save(tmp_path / "state")
    loaded = acclimate.load(FACTORY(), tmp_path / "state")
    assert loaded.guard == chain
    assert_same(adapted(images(2)), loaded(images(2)), "answers after loading")
    assert_same(book(adapted), book(loaded), "state after loading")
    assert isinstance(build_guard("+".join(pair)), Chain)


def test_the_default_guard_is_on_unless_turned_off() -> None:
    """In a process of its own, because this suite turns it off."""
    code = """
        import torch, acclimate
        from torch import nn
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
        adapted = acclimate.adapt(net)
        images = torch.rand(8, 3, 8, 8)
        adapted(images)
        assert adapted.guard.name == "default" and adapted.tally["judged"] == 8
        assert acclimate.adapt(net, guard=None).guard is None
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
