"""PALM against a float64 oracle of its specification, and against what can be derived about it."""

from __future__ import annotations

import itertools
import math

import pytest
import pytorch_optimizer
import torch

import acclimate
from acclimate.core.method import methods
from acclimate.methods.palm import PALM
from methods.reference import by_batch, entropy, palm, small_net, stream

DEFAULTS = {
    "learning_rate": 5e-3,
    "alpha": 0.5,
    "temperature": 50.0,
    "threshold": 4e-4,
    "consistency": 0.05,
    "margin": 0.9,
    "margin_unit": "nat",
    "weight_decay": 0.0,
    "epsilon": 1e-8,
    "reduction": "sum",
    "direction": "uniform",
    "freeze": "sticky",
    "granularity": "tensor",
    "adam": "fresh",
    "consistency_unit": "classes",
    "first_sensitivity": "zero",
    "group": "tensor",
    "score": "uniform",
}
SWITCHES = [
    {},
    {"consistency": 0.0},
    {"alpha": 0.9},
    {"alpha": 0.1},
    {"temperature": 2.0, "threshold": 0.25},
    {"temperature": 1.0, "threshold": 1.0, "direction": "model"},
    {"reduction": "mean", "threshold": 1e-4},
    {"freeze": "per_batch"},
    {"granularity": "element"},
    {"granularity": "element", "freeze": "per_batch"},
    {"adam": "persistent", "threshold": 2e-3, "freeze": "per_batch", "weight_decay": 0.01},
    {"adam": "persistent", "threshold": 2e-3},
    {"adam": "persistent", "threshold": 2e-3, "granularity": "element"},
    {"adam": "persistent", "threshold": 2e-3, "optimizer": "sgd", "learning_rate": 0.5},
    {"consistency_unit": "none", "consistency": 0.5},
    {"first_sensitivity": "first"},
    {"group": "module", "threshold": 6e-4},
    {"score": "pseudo_label", "threshold": 1.0},
    {"margin_unit": "log_classes", "margin": 0.6},
    {"weight_decay": 0.05},
    {"weight_decay": 50.0},
    {"epsilon": 1e-5},
    {"threshold": 1e9},
]


def view(x, generator=None):
    return x.flip(-1) * 0.9


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()) or "default")
def test_equals_the_oracle(switch):
    options = {**DEFAULTS, **switch}
    batches = stream(5)
    answers, twin, log = palm(small_net(), batches, view, **options)
    adapted = acclimate.adapt(small_net(), PALM(**options, views=view))
    for x, expected, step in zip(batches, answers, log, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
        found = {name for name, chosen in adapted.last.detail("selected").items() if chosen}
        assert found == step["selected"]
        scores = adapted.last.detail("score")
        if options["group"] == "tensor":
            assert scores == pytest.approx({k: float(v) for k, v in step["scores"].items()}, rel=1e-5)
    expected = dict(twin.named_parameters())
    for name, weight in adapted.state.weights.items():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-9), name


def test_the_oracle_streams_exercise_what_they_are_for():
    """Tensors cross the threshold in both directions, and some rows are sure while others are not."""
    _, _, log = palm(small_net(), stream(5), view, **DEFAULTS)
    sets = [frozenset(step["selected"]) for step in log]
    assert len(set(sets)) > 1
    assert any(earlier - later for earlier, later in itertools.pairwise(sets))
    _, _, log = palm(small_net(), stream(5), view, **{**DEFAULTS, "adam": "persistent", "threshold": 2e-3})
    assert len({round(float(step["rates"]["1.weight"]), 2) for step in log}) == 5, "rates other than 1 are tested"
    sure = entropy(by_batch(small_net())(stream(1)[0])) < DEFAULTS["margin"]
    assert 0 < int(sure.sum()) < len(sure)


def test_first_answers_are_those_of_batch_statistics():
    x = stream(1)[0]
    assert torch.equal(acclimate.adapt(small_net(), "palm")(x), acclimate.adapt(small_net(), "bn")(x))


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.5, 1 - 1e-6, 1 + 1e-6), (0.9, 1 / 9 - 1e-6, 1 + 1e-6)])
def test_first_importance(alpha, low, high):
    """From a zero start the importance is ((1 - alpha) S + eps) / (alpha S + eps): 1 for alpha 1/2."""
    adapted = acclimate.adapt(small_net(), PALM(alpha=alpha, consistency=0, threshold=1e9))
    adapted(stream(1)[0])
    assert all(low <= r <= high for r in adapted.last.detail("importance").values())


def test_importance_never_exceeds_one_for_alpha_of_a_half_or_more():
    adapted = acclimate.adapt(small_net(), PALM(alpha=0.6, consistency=0, threshold=1e9))
    for x in stream(8):
        adapted(x)
        assert all(0 <= r <= 1 + 1e-6 for r in adapted.last.detail("importance").values())


def test_temperature_only_rescales_the_score():
    """Far above the range of the logits, the score times T^2 is constant."""
    scores = []
    for temperature in (100.0, 1000.0):
        adapted = acclimate.adapt(small_net(), PALM(temperature=temperature, consistency=0))
        adapted(stream(1)[0])
        scores.append({k: s * temperature**2 for k, s in adapted.last.detail("score").items()})
    assert scores[0] == pytest.approx(scores[1], rel=0.05)


def test_temperature_free_threshold_is_the_published_one_in_other_units():
    published = acclimate.adapt(small_net(), PALM(consistency=0, threshold=4e-4, temperature=50.0))
    free = acclimate.adapt(
        small_net(),
        PALM(consistency=0, threshold=4e-4 * 2500, epsilon=2.5e-5, temperature=50.0, threshold_unit="temperature_free"),
    )
    for x in stream(3):
        assert torch.equal(published(x), free(x))


def test_thresholds_at_the_ends():
    nothing = acclimate.adapt(small_net(), PALM(threshold=0.0, consistency=0))
    for x in stream(3):
        nothing(x)
        assert nothing.last.selected == 0
    assert all(torch.equal(w, s) for w, s in zip(nothing.state.weights.values(), nothing.state.sources(), strict=True))
    everything = acclimate.adapt(small_net(), PALM(threshold=1e9, consistency=0))
    everything(stream(1)[0])
    assert everything.last.selected == len(everything.state.weights)


def test_the_threshold_is_inclusive():
    """A tensor that the loss does not reach scores exactly 0 and is selected even at threshold 0."""

    class Partly(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = small_net(), torch.nn.Conv2d(3, 2, 1, bias=False).double()

        def forward(self, x):
            return self.used(x)

    adapted = acclimate.adapt(Partly(), PALM(threshold=0.0, consistency=0))
    adapted(stream(1)[0])
    assert [name for name, chosen in adapted.last.detail("selected").items() if chosen] == ["unused.weight"]
    assert adapted.last.detail("importance")["unused.weight"] == pytest.approx(1.0)


def test_quantile_selects_that_share():
    adapted = acclimate.adapt(small_net(), PALM(threshold_quantile=0.5, consistency=0))
    adapted(stream(1)[0])
    assert adapted.last.selected == math.ceil(len(adapted.state.weights) / 2)


def test_without_a_sure_row_only_consistency_moves():
    """Margin 0 leaves the entropy term empty, value 0 and gradient 0: the update is the consistency's alone."""
    options = {"alpha": 0.5, "consistency": 0.1, "consistency_unit": "none", "learning_rate": 1e-3, "threshold": 1e9}
    adapted = acclimate.adapt(small_net(), PALM(margin=0.0, views=view, **options))
    x, twin = stream(1)[0], by_batch(small_net())
    adapted(x)
    loss = -0.1 * (twin(x).softmax(1) * twin(view(x)).log_softmax(1)).sum(1).mean()
    assert adapted.last.loss == pytest.approx(loss.item())
    assert adapted.last.values["low_entropy"] == 0
    weights = dict(twin.named_parameters())
    grads = torch.autograd.grad(loss, [weights[name] for name in adapted.state.weights])
    for (name, found), g in zip(adapted.state.weights.items(), grads, strict=True):
        assert torch.allclose(found, weights[name] - 1e-3 * g / (g.abs() + 1e-8), rtol=0, atol=1e-9), name


def test_without_a_sure_row_or_a_view_nothing_is_learned():
    adapted = acclimate.adapt(small_net(), PALM(margin=0.0, consistency=0.0, threshold=1e9, weight_decay=0.1))
    adapted(stream(1)[0])
    assert not adapted.last.updated and "sure" in adapted.last.reason
    assert adapted.last.loss == 0 and adapted.state.batches == 1
    assert all(torch.equal(w, s) for w, s in zip(adapted.state.weights.values(), adapted.state.sources(), strict=True))


STUDY = {
    "adam": (1e-3, lambda p: torch.optim.Adam(p, lr=1e-3)),
    "sgd": (1e-2, lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True)),
    "adafactor": (1e-3, lambda p: torch.optim.Adafactor(p, lr=1e-3)),
    "lars": (1.0, lambda p: pytorch_optimizer.LARS(p, lr=1.0)),
    "prodigy": (1.0, lambda p: pytorch_optimizer.Prodigy(p, lr=1.0)),
}


def all_at_rate_one(build, batches, margin=0.9, weight=0.2):
    """Stage 1 removed: one optimiser over every convolution and norm, on the second loss."""
    twin = by_batch(small_net())
    opt = build([p for name, p in twin.named_parameters() if not name.startswith("8.")])
    answers = []
    for x in batches:
        z = twin(x)
        answers.append(z.detach().clone())
        sure = entropy(z) < margin
        loss = entropy(z)[sure].mean() - weight * (z.softmax(1) * twin(view(x)).log_softmax(1)).sum(1).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return answers, twin


@pytest.mark.parametrize("name", STUDY)
def test_without_a_score_it_is_the_plain_optimiser(name):
    learning_rate, build = STUDY[name]
    batches = stream(8)
    answers, twin = all_at_rate_one(build, batches)
    options = {"consistency": 0.05, "margin": 0.9, "views": view}
    method = PALM(
        **{
            "score": "none",
            "adam": "persistent",
            "optimizer": name,
            "learning_rate": learning_rate,
            "margin_unit": "nat",
        }
        | options
    )
    adapted = acclimate.adapt(small_net(), method)
    for x, expected in zip(batches, answers, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
        assert (adapted.last.forwards, adapted.last.backwards) == (2, 1)
    expected = dict(twin.named_parameters())
    for key, weight in adapted.state.weights.items():
        if (name, key) != ("adafactor", "3.bias"):  # before a batch norm: all gradient is rounding, blown up to size 1
            assert torch.allclose(weight, expected[key], rtol=0, atol=1e-9), key
    assert adapted.last.distance > (1e-9 if name == "prodigy" else 1e-4)


def test_without_a_score_a_fresh_adam_moves_all_at_rate_one():
    def fresh(parameters):
        class Fresh(torch.optim.Adam):
            def step(self, closure=None):
                self.state.clear()
                return super().step(closure)

        return Fresh(parameters, lr=1e-3)

    answers, _ = all_at_rate_one(fresh, stream(4))
    adapted = acclimate.adapt(
        small_net(), PALM(score="none", learning_rate=1e-3, consistency=0.05, margin=0.9, margin_unit="nat", views=view)
    )
    for x, expected in zip(stream(4), answers, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("optimizer", "kept"), [("adam", 2), ("lars", 1), ("prodigy", 4), ("sgd", 1), ("adafactor", 2 / 3)]
)
def test_the_stated_cost_is_what_the_optimiser_keeps(optimizer, kept):
    """Counted on a network of 3 x 3 convolutions only, which is what a factored optimiser is judged by."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, bias=False), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 4)
    )
    method = PALM(score="none", adam="persistent", optimizer=optimizer, learning_rate=0.01, consistency=0.1, margin=2.0)
    adapted = acclimate.adapt(net.double(), method)
    adapted(stream(1)[0])
    held = adapted.memory().state
    assert method.cost().copies == {"weights": 1, "optimizer": pytest.approx(kept)}
    assert held["optimizer"] == pytest.approx(kept * held["weights"])


def test_the_classifier_never_moves():
    net = small_net()
    adapted = acclimate.adapt(net, PALM(threshold=1e9))
    for x in stream(3):
        adapted(x)
    assert torch.equal(adapted.merged()[8].weight, net[8].weight)
    assert adapted.merged()[0].weight.ne(net[0].weight).any()


def test_views_are_refused_outside_their_range():
    adapted = acclimate.adapt(small_net(), "palm")
    with pytest.raises(ValueError, match=r"\[0, 1\], found values from -2"):
        adapted(stream(1)[0] * 4 - 2)
    acclimate.adapt(small_net(), PALM(consistency=0))(stream(1)[0] * 4 - 2)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 0},
        {"alpha": 1.5},
        {"freeze": "always"},
        {"threshold": -1},
        {"margin": float("nan")},
        {"adam": "fresh", "optimizer": "sgd"},
        {"score": "entropy"},
    ],
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match=r"must|persistent"):
        PALM(**options)


@pytest.mark.parametrize("preset", PALM.presets)
def test_presets_run(preset):
    adapted = acclimate.adapt(small_net().float(), methods.build(f"palm:{preset}"))
    assert adapted(stream(1)[0].float()).isfinite().all()


def test_the_stable_preset_is_the_reference_in_other_units():
    """At T = 50 the published eta = 1 and eps = 1e-8 are 2500 and 2.5e-5 for T = 1."""
    stable, reference = PALM.preset("stable"), PALM.preset("reference")
    assert stable.threshold == reference.threshold * reference.temperature**2
    assert stable.epsilon == pytest.approx(reference.epsilon * reference.temperature**2)
    assert (stable.threshold_unit, stable.freeze) == ("temperature_free", "per_batch")


def test_published_presets():
    """Constants of the released configuration (CIFAR-10-C, CIFAR-100-C, ImageNet-C)."""
    rows = [PALM.preset(name) for name in ("cifar10-c", "cifar100-c", "imagenet-c")]
    assert [p.learning_rate for p in rows] == [5e-4, 5e-4, 5e-5]
    assert [p.alpha for p in rows] == [0.5, 0.9, 0.5]
    assert [p.temperature for p in rows] == [50, 100, 1000]
    assert [p.threshold for p in rows] == [1.0, 0.5, 0.3]
    assert [p.weight_decay for p in rows] == [0, 5e-4, 0]
    assert {p.consistency for p in rows} == {0.01}
    assert {(p.margin, p.margin_unit) for p in rows} == {(0.4, "nat")}
