"""What may go wrong around a step: it is undone, or the source answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import acclimate
import acclimate.adapted
from acclimate.anatomy import affine_norms
from acclimate.core.state import State
from acclimate.methods.tent import Tent
from conformance.models import MODELS, ConvNet, built
from conformance.tools import Fault, Faulty, answers, assert_same, book, make, source_answer

FACTORY, BATCH = MODELS["batch_norm"]


class Particular(nn.Module):
    """Raises for inputs that are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FACTORY()

    def forward(self, x: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise RuntimeError("this model checks its input")
        return self.net(x)


def test_a_source_that_raises_on_a_bad_row_undoes_the_step() -> None:
    """The call failed, so nothing of it may remain."""
    adapted = acclimate.adapt(Particular(), "tent")
    x = BATCH(0)
    x[3, 0, 0, 0] = float("nan")
    with pytest.raises((ValueError, RuntimeError)):
        adapted(x)
    assert_same(book(adapted), book(acclimate.adapt(Particular(), "tent")), "state")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_second_answer_undoes_the_step(error: type[BaseException]) -> None:
    """With `answer="after"` the last forward belongs to the transaction."""
    fault = Fault()
    adapted = acclimate.adapt(Faulty(FACTORY(), fault), "tent", answer="after")
    fault.countdown, fault.error = 2, error
    with pytest.raises(error):
        adapted(BATCH(0))
    assert_same(book(adapted), book(acclimate.adapt(Faulty(FACTORY(), Fault()), "tent")), "state")


def test_an_interrupt_while_the_step_is_judged_undoes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = make("tent", FACTORY)
    adapted(BATCH(0))
    before = book(adapted)

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(acclimate.adapted, "entropy", interrupt)
        with pytest.raises(KeyboardInterrupt):
            adapted(BATCH(1))
    assert_same(book(adapted), before, "state")


class Steep(nn.Module):
    """Finite at its source weights, infinite where they are twice as large."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FACTORY()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * (60 * self.net.norm1.weight.mean()).exp()


@dataclass(frozen=True, kw_only=True)
class Push(acclimate.Method):
    """Makes every adapted weight 1.4 times as large."""

    card: ClassVar[acclimate.Card] = acclimate.Card(summary="test", paper="none", fails_when="always")

    def setup(self, state: State) -> None:
        state.adapt(affine_norms, "norms")

    def step(self, state: State, x: Tensor) -> Tensor:
        logits = state.forward(x)
        with torch.no_grad():
            for weight in state.weights.values():
                weight.mul_(1.4)
        return logits


@pytest.mark.parametrize("answer", ["before", "after"])
def test_no_answer_is_infinite_because_of_an_earlier_batch(answer: str) -> None:
    """Finite weights can still give infinite answers: then the source answers, frozen or not."""
    adapted = acclimate.adapt(Steep(), Push(), answer=answer)
    for number in range(3):
        assert bool(adapted(BATCH(number)).isfinite().all()), f"batch {number}"
        with adapted.frozen():
            assert bool(adapted(BATCH(number)).isfinite().all()), f"frozen, after batch {number}"


def test_refused_source_parts_still_answer() -> None:
    """A batch whose answers are not finite is answered by the source, and only then."""

    class Brittle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = built(lambda: ConvNet(nn.BatchNorm2d))

        def forward(self, x: Tensor) -> Tensor:
            bad = (x.amax((1, 2, 3)) > 2).float()[:, None]
            return self.net(x) / (1 - bad)

    adapted, twin = acclimate.adapt(Brittle(), "tent"), acclimate.adapt(Brittle(), "tent")
    x = BATCH(0)
    x[2] *= 5
    found = adapted(x)
    assert adapted.last.held == 8 and "not finite" in adapted.last.reason
    assert_same(found, source_answer(Brittle, x), "the answer")
    assert_same(book(adapted), book(twin), "state")


def test_weights_that_start_at_zero_can_learn() -> None:
    """The bound on a step is relative to the source's norm; all zeros must not make every step an explosion."""

    def zeros() -> nn.Module:
        model = FACTORY()
        nn.init.zeros_(model.norm1.bias)
        nn.init.zeros_(model.norm2.bias)
        return model

    def biases(model: nn.Module) -> dict[str, nn.Parameter]:
        return {name: p for name, p in affine_norms(model).items() if name.endswith("bias")}

    adapted = acclimate.adapt(zeros(), Tent(select=biases))
    adapted(BATCH(0))
    assert adapted.last.updated, adapted.last.reason


@pytest.mark.parametrize("name", ["importance", "mean_prediction", "sensitivity", "batches", "optimizer", "generator"])
@pytest.mark.parametrize("method", ["palm", "rdumb"])
def test_the_models_own_names_do_not_collide_with_the_methods(method: str, name: str, tmp_path: Any) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = FACTORY()
            setattr(self, name, nn.BatchNorm2d(3))
            self.register_buffer("importance_" if name == "importance" else "importance", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.get_buffer("importance_" if name == "importance" else "importance").add_(1)
            return self.net(getattr(self, name)(x))

    adapted = acclimate.adapt(Named(), method)
    answers(adapted, map(BATCH, range(2)))
    adapted.save(tmp_path / "state")
    assert_same(book(acclimate.load(Named(), tmp_path / "state")), book(adapted), "state")
