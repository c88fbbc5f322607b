"""Twins of the weights, banks born late, and forwards on other rows: what methods with teachers and memories need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.anatomy import affine_norms, everything
from acclimate.core.inputs import Call
from acclimate.core.method import Card, Cost, Method
from acclimate.core.state import State
from acclimate.functional import entropy
from conformance.models import MODELS, images
from conformance.tools import assert_same, book

CARD = Card(summary="a test", paper="none", needs=frozenset({"norm", "backward"}), fails_when="always")


@dataclass(frozen=True, kw_only=True)
class Twin(Method):
    """A teacher that answers and a student that learns, with a bank of the first rows of each batch."""

    name: ClassVar[str] = "twin"
    card: ClassVar[Card] = CARD
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    learning_rate: float = 0.1
    classes: int | None = None
    source: Any = field(default=None, metadata={"recorded": False})

    def setup(self, state: State) -> None:
        state.adapt(affine_norms, "normalisation weights")
        state.twin("student")
        state.optimizer("sgd", self.learning_rate)
        state.expect("bank", length=2)
        state.classes(self.classes)

    def step(self, state: State, x: Tensor) -> Tensor:
        if "bank" not in state:
            state.fulfil("bank", torch.zeros(2, *x.shape[1:]))
        state["bank"].copy_(x[:2])
        with torch.no_grad():
            logits = state.forward(x)
        with state.using("student"):
            loss = entropy(state.forward(x, answering=False)).mean()
            state.descend(state.gradients(loss))
        return logits

    def cost(self) -> Cost:
        return Cost(forwards=2, backwards=1, copies={"weights": 2, "optimizer": 1}, memory={"sample": 2})


@pytest.fixture
def net() -> nn.Module:
    return MODELS["batch_norm"][0]()


def test_a_twin_learns_while_the_live_weights_stay(net: nn.Module) -> None:
    adapted = acclimate.adapt(net, Twin())
    sources = [tensor.clone() for tensor in adapted.state.sources()]
    plain = acclimate.adapt(net, "bn")
    for number in range(3):
        assert torch.equal(adapted(images(number)), plain(images(number))), "the live weights answer, unmoved"
    twin = adapted.state.twins["student"]
    assert all(torch.equal(w, s) for w, s in zip(adapted.state.weights.values(), sources, strict=True))
    assert all(not torch.equal(t, s) for t, s in zip(twin.values(), sources, strict=True))
    moved = acclimate.adapt(net, Twin())
    moved.state.begin(Call((images(0),), {}, 0))
    with moved.state.using("student"), torch.no_grad():
        for tensor in moved.state.twins["student"].values():
            tensor.add_(0.5)
        inside = moved.state.forward(images(0))
    outside = moved.state.forward(images(0), answering=False)
    assert not torch.equal(inside, outside), "the block runs on the twin"


def test_a_twin_that_explodes_is_undone(net: nn.Module) -> None:
    adapted = acclimate.adapt(net, Twin(learning_rate=1e9))
    before = book(adapted)
    adapted(images(0))
    assert "moved the weights" in str(adapted.last.reason)
    assert_same(book(adapted), before, "state after an exploding twin")


def test_an_error_inside_the_block_gives_the_weights_back(net: nn.Module) -> None:
    adapted = acclimate.adapt(net, Twin())
    homes = [weight.data_ptr() for weight in adapted.state.weights.values()]
    with pytest.raises(KeyError), adapted.state.using("student"):
        raise KeyError
    assert [weight.data_ptr() for weight in adapted.state.weights.values()] == homes


def test_using_source_runs_the_unadapted_weights(net: nn.Module) -> None:
    adapted = acclimate.adapt(net, "tent")
    for number in range(3):
        adapted(images(number))
    adapted.state.begin(Call((images(5),), {}, 0))
    with adapted.state.using("source"), torch.no_grad():
        found = adapted.state.forward(images(5), answering=False)
    assert torch.equal(found, acclimate.adapt(net, "bn")(images(5)))


def test_a_late_tensor_is_absent_before_its_birth_and_after_a_reset(net: nn.Module) -> None:
    adapted = acclimate.adapt(net, Twin())
    empty = adapted.snapshot("empty")
    assert "bank" not in adapted.state and "memory" not in adapted.memory().state
    adapted(images(0))
    full = adapted.snapshot("full")
    assert adapted.memory().state["memory"] == 2 * 3 * 8 * 8 * 4
    adapted.restore(empty)
    assert "bank" not in adapted.state
    adapted.restore(full)
    assert torch.equal(adapted.state["bank"], images(0)[:2])
    adapted.reset()
    assert "bank" not in adapted.state


def test_a_late_tensor_with_another_number_of_rows_is_refused(net: nn.Module) -> None:
    state = acclimate.adapt(net, Twin()).state
    with pytest.raises(ValueError, match="announced with 2 rows, found 3"):
        state.fulfil("bank", torch.zeros(3, 4))
    tensors, scalars = state.table.export()
    with pytest.raises(ValueError, match="expected 2 rows"):
        state.table.adopt({**tensors, "method.bank": torch.zeros(3, 4)}, scalars)
    with pytest.raises(ValueError, match="declared once"):
        state.expect("bank", length=2)


def test_data_a_method_is_given_is_no_setting(net: nn.Module) -> None:
    method = Twin(source=torch.rand(3))
    assert "source" not in method.config()
    assert acclimate.adapt(net, method).method.config() == Twin().config()


def test_a_wrong_class_count_names_the_choice(net: nn.Module) -> None:
    adapted = acclimate.adapt(net, Twin(classes=7))
    with pytest.raises(ValueError, match=r"5 classes, but this method counts 7.*classes=5"):
        adapted(images(0))
    assert acclimate.adapt(net, Twin(classes=5))(images(0)).shape == (8, 5)


class Weighed(nn.Module):
    """Scales each row's logits by a second input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.net(x) * weight[:, None]


def test_forwards_on_other_rows_take_the_other_inputs_along() -> None:
    """A rerun of rows 5, 1, 1 sees their weights; folded views see the batch's weights once for each view."""
    net = Weighed(MODELS["group_norm"][0]())
    state = acclimate.adapt(net, "tent").state
    x, weight = images(0), torch.arange(1.0, 9.0)
    state.begin(Call((x, weight), {}, 0))
    with torch.no_grad():
        whole = state.forward(x)
        rows = torch.tensor([5, 1, 1])
        torch.testing.assert_close(state.forward(x[rows], answering=False, rows=rows), whole[rows])
        twice = torch.arange(8).repeat(2)
        folded = state.forward(torch.cat([x, x]), answering=False, groups=2, rows=twice)
    torch.testing.assert_close(folded, torch.cat([whole, whole]))
    assert state.forwards == 1 + 3 / 8 + 2


@pytest.mark.parametrize(
    ("model", "normalization", "expected"),
    [
        ("batch_norm", "batch", True),
        ("batch_norm", "alpha", True),
        ("batch_norm", "source", False),
        ("batch_norm", "ema", False),
        ("group_norm", "batch", False),
        ("vit", "batch", False),
        ("batch_norm_without_statistics", "source", True),
    ],
)
def test_by_batch_tells_whether_rows_depend_on_each_other(model: str, normalization: str, expected: bool) -> None:
    adapted = acclimate.adapt(MODELS[model][0](), "tent", normalization=normalization)
    assert adapted.state.by_batch is expected
    adapted.state.begin(Call((images(0),), {}, 0))
    with torch.no_grad():
        whole, half = adapted.state.forward(images(0)), adapted.state.forward(images(0)[:4], answering=False)
    assert torch.allclose(whole[:4], half, atol=1e-5) is not expected


def test_every_parameter_can_have_a_twin() -> None:
    """Tied parameters are swapped once, and where they stand twice."""
    net = MODELS["tied"][0]()
    state = acclimate.adapt(net, "tent").state
    state.adapt(lambda model: {n: p for n, p in everything(model).items() if n not in state.weights}, "parameters")
    state.twin("other")
    state.begin(Call((images(0),), {}, 0))
    with torch.no_grad():
        before = state.forward(images(0))
        for tensor in state.twins["other"].values():
            tensor.mul_(1.5)
        with state.using("other"):
            assert state.model.norm1.weight is state.model.norm2.weight
            assert not torch.equal(state.forward(images(0), answering=False), before)
        assert torch.equal(state.forward(images(0), answering=False), before)
