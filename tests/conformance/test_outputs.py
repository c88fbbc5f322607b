"""Whatever a model returns comes back in the same structure, with rows held back put in their places."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import acclimate

from .models import SHAPES, Pair, images, wrapped
from .tools import assert_same, book, flat, source_answer

GOOD = torch.arange(8) != 3
SELECTORS = {"namedtuple": None, "list": 0}


def _spoiled(number: int) -> Tensor:
    x = images(number)
    x[3, 0, 0, 0] = float("nan")
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["source", "bn", "tent", "palm"])
def test_structure_survives(method: str, shape: str) -> None:
    adapted = acclimate.adapt(wrapped(shape), method, output=SELECTORS.get(shape))
    twin = acclimate.adapt(wrapped("tensor"), method)
    like = source_answer(lambda: wrapped(shape), images(0))
    for number in range(3):
        found, logits = adapted(images(number)), twin(images(number))
        assert type(found) is type(like)
        assert [t.shape for t in flat(found)] == [t.shape for t in flat(like)]
        assert not any(t.requires_grad for t in flat(found))
        assert_same(_logits(found), logits, "logits")


@pytest.mark.parametrize("shape", SHAPES)
def test_held_rows_are_merged(shape: str) -> None:
    """A bad row's logits and features are the source's; all others are those of the batch of seven."""
    factory = lambda: wrapped(shape)  # noqa: E731
    adapted = acclimate.adapt(factory(), "tent", output=SELECTORS.get(shape))
    twin = acclimate.adapt(factory(), "tent", output=SELECTORS.get(shape))
    for number in range(2):
        x = _spoiled(number)
        found, good, bad = adapted(x), twin(x[GOOD]), source_answer(factory, x[3:4])
        assert type(found) is type(bad)
        for ours, seven, one in zip(flat(found), flat(good), flat(bad), strict=True):
            if ours.ndim == 0:
                assert_same(ours, seven, "a number that belongs to no row")
                continue
            assert_same(ours[GOOD], seven, "good rows")
            assert_same(ours[3:4], one, "the bad row")
    assert_same(book(adapted), book(twin), "state")


def test_fields_that_are_no_tensors_come_back() -> None:
    found = acclimate.adapt(wrapped("dict"), "tent")(images(0))
    assert list(found) == ["features", "logits", "scale", "n"] and found["n"] == 3 and float(found["scale"]) == 2
    answer = acclimate.adapt(wrapped("dataclass"), "tent")(_spoiled(0))
    assert answer.note == "plain" and isinstance(answer.features, tuple)
    hybrid = acclimate.adapt(wrapped("model_output"), "tent")(_spoiled(0))
    assert hybrid.loss is None and list(hybrid) == ["logits", "hidden_states"]
    assert hybrid.logits is hybrid["logits"] is hybrid[0] and hybrid.logits.shape == (8, 5)
    pair = acclimate.adapt(wrapped("namedtuple"), "tent")(images(0))
    assert isinstance(pair, Pair) and pair.logits.shape == (8, 5)


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("method", ["bn:ema", "tent", "palm"])
def test_keyword_calls(method: str, bad: bool) -> None:
    """`model(pixel_values=x)` is `model(x)`."""
    by_name, by_place = (acclimate.adapt(wrapped("dict"), method) for _ in range(2))
    for number in range(2):
        x = _spoiled(number) if bad else images(number)
        assert_same(by_name(pixel_values=x), by_place(x), "answers")
    assert_same(book(by_name), book(by_place), "state")


@pytest.mark.parametrize("method", ["source", "bn:ema", "tent", "palm"])
def test_further_tensors_with_a_row_each(method: str) -> None:
    """Arguments with as many rows as the input lose the bad rows with it."""
    adapted, twin = (acclimate.adapt(wrapped("tensor"), method) for _ in range(2))
    weights = torch.linspace(0.5, 1.5, 8)
    for number in range(2):
        x = _spoiled(number)
        found = adapted(x, weights=weights)
        assert_same(found[GOOD], twin(x[GOOD], weights=weights[GOOD]), "good rows")
        expected = source_answer(lambda: wrapped("tensor"), x[3:4], weights[3:4])
        assert_same(found[3:4], expected, "the bad row")
    assert_same(book(adapted), book(twin), "state")


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = wrapped("tensor")

    def forward(self, inputs: dict[str, Any], x: Tensor) -> Tensor:
        return self.net(x) * inputs["weights"][:, None]


def test_further_tensors_in_a_dictionary() -> None:
    """Rows of nested arguments go with the bad rows too."""
    adapted, twin = (acclimate.adapt(Nested(), "tent") for _ in range(2))
    weights, x = torch.linspace(0.5, 1.5, 8), _spoiled(0)
    found = adapted({"weights": weights}, x)
    assert_same(found[GOOD], twin({"weights": weights[GOOD]}, x[GOOD]), "good rows")


def test_a_bad_further_tensor_is_not_learned_from() -> None:
    """NaN in a second tensor reaches the answers: the step is refused, and nothing remains of it."""
    adapted, twin = (acclimate.adapt(wrapped("tensor"), "tent") for _ in range(2))
    for each in (adapted, twin):
        each(images(0))
    weights = torch.ones(8)
    weights[2] = float("nan")
    adapted(images(1), weights=weights)
    assert not adapted.last.updated
    assert_same(book(adapted), book(twin), "state")


class Generous(nn.Module):
    """Hands out its own parameters and buffers beside its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = wrapped("tensor").net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scale, mean = self.net.norm1.weight, self.net.norm1.running_mean
        return {"logits": self.net(x), "scale": scale, "mean": mean, "head": self.net.head.weight}


@pytest.mark.parametrize("way", ["step", "after", "frozen", "held", "row"])
@pytest.mark.parametrize("method", ["bn:ema", "tent"])
def test_outputs_are_the_callers_own(method: str, way: str) -> None:
    """Writing over anything that came back changes neither the adaptation nor the source."""
    adapted, twin = (
        acclimate.adapt(Generous(), method, answer="after" if way == "after" else "before") for _ in range(2)
    )
    x = images(0)
    if way in ("held", "row"):
        x[3 if way == "row" else slice(None), 0, 0, 0] = float("nan")

    def respond(each: acclimate.Adapted) -> Any:
        if way == "frozen":
            with each.frozen():
                return each(x)
        return each(x)

    for tensor in flat(respond(adapted)):
        assert not tensor.requires_grad
        tensor.fill_(7.0)
    respond(twin)
    assert_same(book(adapted), book(twin), "state and source")
    with adapted.source() as source:
        assert_same(source(images(1)), source_answer(Generous, images(1)), "an answer of the source")


@pytest.mark.parametrize("output", ["nothing", 5, lambda out: out["features"][:, 0]])
def test_no_logits_is_a_clear_error(output: Any) -> None:
    adapted = acclimate.adapt(wrapped("dict"), "tent", output=output)
    with pytest.raises(ValueError, match="output="):
        adapted(images(0))
    assert adapted.state.batches == 0


def test_selectors() -> None:
    """A key, a position or a function tells where the logits are."""
    plain = acclimate.adapt(wrapped("tensor"), "tent")(images(0))
    chosen = {"dict": "logits", "tuple": 0, "namedtuple": 1, "model_output": "logits", "list": 0}
    for shape, output in chosen.items():
        found = acclimate.adapt(wrapped(shape), "tent", output=output)(images(0))
        assert_same(_logits(found), plain, shape)


def _logits(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return output.logits
    return output["logits"] if isinstance(output, dict) else output[0]
