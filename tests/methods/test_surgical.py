"""Surgical against a float64 oracle of its formulas, on a small residual network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import acclimate
from acclimate.anatomy import affine_norms
from acclimate.methods.surgical import Surgical
from conformance.models import MODELS
from methods.reference import by_batch, entropy, small_net, stream

CLASSES = 5


def net() -> nn.Module:
    return MODELS["residual"][0]().double()


def view(x, generator=None):
    return x.flip(-1) * 0.9


def in_first_stage(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if name.startswith("stage1.")}


def surgical(batches, build, *, margin, consistency):
    twin = by_batch(net())
    opt = build(list(in_first_stage(twin).values()))
    answers, sure = [], []
    for x in batches:
        z = twin(x)
        answers.append(z.detach().clone())
        rows = entropy(z) < margin * math.log(CLASSES)
        sure.append(int(rows.sum()))
        loss = entropy(z)[rows].mean() if rows.any() else 0.0
        if consistency:
            loss = loss - consistency * (z.softmax(1) * torch.log(twin(view(x)).softmax(1))).sum(1).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return answers, twin, sure


SETTINGS = [{}, {"margin": 0.7}, {"margin": 0.0}, {"consistency": 0.0}, {"consistency": 1.0}, {"optimizer": "adam"}]


@pytest.mark.parametrize("changed", SETTINGS, ids=str)
def test_equals_the_oracle(changed):
    options = {"learning_rate": 0.05, "margin": 0.4, "consistency": 0.1, **changed}

    def build(parameters):
        if "optimizer" in changed:
            return torch.optim.Adam(parameters, lr=0.05)
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True)

    given = {key: options[key] for key in ("margin", "consistency")}
    answers, twin, sure = surgical(stream(6), build, **given)
    adapted = acclimate.adapt(net(), Surgical(**options, views=view))
    for x, expected, rows in zip(stream(6), answers, sure, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
        assert adapted.last.values["low_entropy"] == rows
        assert (adapted.last.forwards, adapted.last.backwards) == (2 if options["consistency"] else 1, 1)
    assert set(adapted.state.weights) == set(in_first_stage(twin))
    expected = dict(twin.named_parameters())
    for name, weight in adapted.state.weights.items():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-9), name


def test_the_oracle_streams_exercise_what_they_are_for():
    """Some rows are sure and some are not, and the stage moves."""
    _, twin, sure = surgical(
        stream(6), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True), margin=0.4, consistency=0.1
    )
    assert all(0 < rows < 12 for rows in sure) and len(set(sure)) > 1
    first = in_first_stage(net())
    assert all((p - first[name]).abs().max() > 1e-3 for name, p in in_first_stage(twin).items())


def test_first_answers_are_those_of_batch_statistics():
    x = stream(1)[0]
    assert torch.equal(acclimate.adapt(net(), "surgical")(x), acclimate.adapt(net(), "bn")(x))


def test_stem_later_stages_and_classifier_never_move():
    model = net()
    adapted = acclimate.adapt(model, Surgical(learning_rate=0.05, views=view))
    for x in stream(4):
        adapted(x)
    before = dict(model.named_parameters())
    moved = {name for name, p in adapted.merged().named_parameters() if p.ne(before[name]).any()}
    assert moved == set(in_first_stage(model))


def test_without_a_sure_row_or_a_view_nothing_is_learned():
    """Momentum does not coast either."""
    adapted = acclimate.adapt(net(), Surgical(learning_rate=0.05, margin=0.0, consistency=0.0))
    for x in stream(2):
        adapted(x)
        assert not adapted.last.updated and "sure" in adapted.last.reason
    assert all(torch.equal(w, s) for w, s in zip(adapted.state.weights.values(), adapted.state.sources(), strict=True))


def test_a_model_without_blocks_is_told_what_is_missing_and_may_choose():
    with pytest.raises(ValueError, match=r"repeated blocks.*Sequential has none.*select=") as caught:
        acclimate.adapt(small_net(), "surgical")
    assert "surgical" not in str(caught.value).rpartition(":")[2]
    adapted = acclimate.adapt(small_net(), Surgical(select=affine_norms, views=view))
    adapted(stream(1)[0])
    assert adapted.last.updated and set(adapted.state.weights) == {"1.weight", "1.bias", "4.weight", "4.bias"}


def test_views_are_refused_outside_their_range():
    with pytest.raises(ValueError, match=r"Surgical .* \[0, 1\], found values from -2"):
        acclimate.adapt(net(), "surgical")(stream(1)[0] * 4 - 2)


@pytest.mark.parametrize("options", [{"learning_rate": -1}, {"margin": -0.1}, {"consistency": -1}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        Surgical(**options)


def test_published_settings():
    """SGD with Nesterov momentum 0.9, 1e-3 for CIFAR and 5e-4 for ImageNet; 0.4 ln C; 0.01, not times C."""
    rows = [Surgical.preset(name) for name in ("cifar", "imagenet")]
    assert [p.learning_rate for p in rows] == [1e-3, 5e-4]
    assert {(p.margin, p.consistency, p.optimizer) for p in rows} == {(0.4, 0.01, "sgd")}
    group = acclimate.adapt(net(), "surgical").state.table.optimizers["optimizer"].optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 0)
