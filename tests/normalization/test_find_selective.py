"""Selective FIND: what is scored, what is chosen, when, and what a reset, a rollback and a file bring back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.inputs import Call
from acclimate.methods.bn import BN
from acclimate.normalization.find import FeatureAwareStatistics
from acclimate.normalization.find_selective import SelectiveFeatureAwareStatistics
from conformance.models import MODELS, cells, images
from conformance.tools import answers, assert_same, book
from normalization.test_statistics import Whole, fixture

FACTORY, _ = MODELS["residual"]
NORMS = ["norm", *(f"stage{s}.{b}.norm{n}" for s in (1, 2) for b in (0, 1) for n in (1, 2))]
SELECTORS: dict[str, dict[str, Any]] = {
    "probe": {},
    "images": {"images": torch.cat([images(number) for number in range(60, 64)])},
    "divergence": {"select": "divergence", "batches": 2},
    "fixed": {"select": "fixed"},
}


def adapt(method: str = "bn", factory: Any = FACTORY, **settings: Any) -> Adapted:
    return acclimate.adapt(factory(), method, normalization=SelectiveFeatureAwareStatistics(**settings))


def choice(adapted: Adapted) -> list[int]:
    return adapted.state.table.slots["normalization.find.choice"].tensor.tolist()


def scores(adapted: Adapted) -> list[float]:
    return adapted.state.table.slots["normalization.find.scores"].tensor.tolist()


def by_hand(net: nn.Module, views: list[torch.Tensor]) -> dict[str, float]:
    """D / (D + E) of every layer of the source, by loops over what its norms take in."""
    taken: dict[str, list[torch.Tensor]] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda layer, args, name=name: taken.setdefault(name, []).append(
                    (args[0].mean((2, 3)) - layer.running_mean) / (layer.running_var + layer.eps).sqrt()
                )
            )
    with torch.no_grad():
        for view in views:
            net(view)
    found = {}
    for name, seen in taken.items():
        rows = [[row.tolist() for row in view] for view in seen]
        shifts, count, width = len(rows), len(rows[0]), len(rows[0][0])
        total = [sum(rows[m][i][c] for m in range(shifts) for i in range(count)) / shifts / count for c in range(width)]
        domain = sum(
            (sum(rows[m][i][c] for i in range(count)) / count - total[c]) ** 2
            for m in range(shifts)
            for c in range(width)
        )
        content = sum(
            (sum(rows[m][i][c] for m in range(shifts)) / shifts - total[c]) ** 2
            for i in range(count)
            for c in range(width)
        )
        found[name] = (domain / shifts) / (domain / shifts + content / count)
    return found


def test_the_probe_scores_the_source():
    from acclimate.parts.pseudo_domains import pseudo_domains

    x = torch.cat([images(number) for number in range(60, 63)])
    views = pseudo_domains(x, (float(x.min()), float(x.max())), torch.Generator().manual_seed(0))
    expected = by_hand(FACTORY(), views)
    given = adapt(images=x)
    first = adapt()
    first(x)
    for adapted in (given, first):
        assert scores(adapted) == pytest.approx([expected[name] for name in NORMS], rel=1e-4)
        mean = sum(expected.values()) / len(expected)
        assert choice(adapted) == [int(expected[name] >= mean) for name in NORMS]
        assert 0 < sum(choice(adapted)) < len(NORMS)


def test_passes_of_the_probe():
    """Without images five forwards on the first batch that is large enough; with them none on the stream."""
    without, given = adapt(), adapt(images=SELECTORS["images"]["images"])
    for number, expected in enumerate((1, 6, 1, 1)):
        x = images(number)[: 3 if number == 0 else 8]
        without(x)
        given(x)
        assert (without.last.forwards, given.last.forwards) == (expected, 1)
        assert without.last.values["choosing"] == (number == 0)
        assert given.last.values["choosing"] == 0
    assert without.method.cost().forwards == 6
    assert given.method.cost().forwards == 1


def test_a_large_batch_is_probed_in_part():
    adapted = adapt()
    adapted(torch.cat([images(number) for number in range(16)]))
    assert adapted.last.forwards == 1 + 5 * 64 / 128


def test_frozen_answers_choose_nothing():
    for settings in ({}, {"select": "divergence", "batches": 1}):
        adapted = adapt(**settings)
        with adapted.frozen():
            adapted(images(0))
        assert set(choice(adapted)) == {-1} and set(scores(adapted)) == {0}


def layer_answer(x: torch.Tensor, layer: nn.Module, **settings: Any) -> torch.Tensor:
    return acclimate.adapt(Whole(layer), "source", normalization=FeatureAwareStatistics(**settings))(x)


def test_published_divergence():
    """On the published fixture without correction for chance: J = 0.0156396. With it, as by hand."""
    layer, x = fixture()
    adapted = acclimate.adapt(
        Whole(layer), "source", normalization=SelectiveFeatureAwareStatistics(select="divergence"), seed=3
    )
    ours: Any = adapted.state.layers[0]
    own = ours.own(x)
    labels = ours.labels(*own)
    assert float(distance(layer, own, labels)) == pytest.approx(0.0156396, abs=1e-7)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    expected = max(0.0, float(distance(layer, own, labels) - distance(layer, own, labels[order])))
    assert expected > 0
    adapted(x)
    assert scores(adapted) == pytest.approx([expected], rel=1e-5)
    adapted(x)
    assert scores(adapted) == pytest.approx([2 * expected], rel=1e-5)


def distance(layer: nn.Module, own: tuple[torch.Tensor, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """`sum_g n_g / B mean_c (KL(g|B) + KL(B|g)) / 2` by loops and the formula of the divergence."""

    def blended(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = own[0][rows].mean(0)
        variance = own[1][rows].mean(0) + (own[0][rows] - mean).square().mean(0)
        return 0.8 * layer.running_mean + 0.2 * mean, 0.8 * layer.running_var + 0.2 * variance

    def kl(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return ((other[1] / one[1]).log() + (one[1] + (one[0] - other[0]) ** 2) / other[1] - 1) / 2

    batch = blended(torch.arange(len(labels)))
    total = torch.zeros((), dtype=torch.float64)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        group = blended(rows)
        total += len(rows) / len(labels) * ((kl(group, batch) + kl(batch, group)) / 2).mean()
    return total


def test_divergence_waits_for_its_batches():
    """All layers are grouped until `batches` batches of four samples or more have come; then the choice stands."""
    adapted = adapt(select="divergence", batches=2)
    everywhere = acclimate.adapt(FACTORY(), "bn", normalization="find")
    sizes = (8, 2, 8, 8, 8)
    for number, (size, choosing) in enumerate(zip(sizes, (1, 1, 1, 0, 0), strict=True)):
        x = images(number)[:size]
        answer = adapted(x)
        assert adapted.last.forwards == 1
        assert adapted.last.values["choosing"] == choosing
        assert adapted.last.values["grouped_layers"] == (9 if choosing else sum(choice(adapted)))
        assert ("one_group" in adapted.last.values) == (size < 4)
        assert torch.equal(answer, everywhere(x)) == bool(choosing)
        if number == 3:
            settled = scores(adapted)
    assert scores(adapted) == settled and set(choice(adapted)) == {0, 1}
    assert adapted.last.detail("choice") == dict(zip(NORMS, choice(adapted), strict=True))
    assert adapted.last.detail("scores") == pytest.approx(dict(zip(NORMS, settled, strict=True)))


def test_steps_on_one_batch_count_once():
    """Of a method that learns nothing all steps are alike: scores and choice are those of one step a batch."""
    config = SelectiveFeatureAwareStatistics(select="divergence", batches=2)
    once, thrice = (acclimate.adapt(FACTORY(), BN(steps=steps, normalization=config)) for steps in (1, 3))
    for number, choosing in enumerate((1, 1, 0, 0)):
        for adapted in (once, thrice):
            adapted(images(number))
            assert adapted.last.values["choosing"] == choosing
        assert scores(thrice) == scores(once) and choice(thrice) == choice(once)
    assert thrice.last.forwards == 3


@pytest.mark.parametrize("unified", ["batch", "source"])
def test_grouped_and_other_layers(unified):
    """The one layer that is not chosen among two answers by the whole batch, or as the source does."""
    layer, x = fixture()
    net = nn.Sequential(Whole(layer), Whole(copy.deepcopy(layer)))
    for number, named in enumerate(("0", "1")):
        normalization = SelectiveFeatureAwareStatistics(select="fixed", layers=(named,), unified=unified)
        found = acclimate.adapt(net, "source", normalization=normalization)(x)
        expected = x
        for place in range(2):
            grouping = "first_neighbours" if place == number else "whole"
            weight = 1.0 if unified == "source" and place != number else 0.8
            expected = layer_answer(expected, layer, grouping=grouping, source_weight=weight)
        assert torch.allclose(found, expected, atol=1e-12)


def test_fixed_layers():
    assert choice(adapt(select="fixed")) == [1] * 5 + [0] * 4
    assert choice(adapt(select="fixed", first=1.0)) == [1] * 9
    assert choice(adapt(select="fixed", first=0.0)) == [1] + [0] * 8
    assert choice(adapt(select="fixed", stages=(2,))) == [0] * 5 + [1] * 4
    assert choice(adapt(select="fixed", stages=(1,))) == [1] * 5 + [0] * 4
    assert choice(adapt(select="fixed", layers=("stage2.1", "norm"))) == [1] + [0] * 6 + [1] * 2
    with pytest.raises(ValueError, match=r"there is no stem in Residual.*norm"):
        adapt(select="fixed", layers=("stem",))


@pytest.mark.parametrize("rule", ["mean", "absolute", "top"])
def test_rules_choose_by_the_same_scores(rule):
    adapted = adapt(rule=rule, level=0.5, images=SELECTORS["images"]["images"])
    found = scores(adapted)
    expected = {
        "mean": [value >= sum(found) / 9 for value in found],
        "absolute": [value >= 0.5 for value in found],
        "top": [value >= sorted(found)[-5] for value in found],
    }[rule]
    if rule == "absolute" and not any(expected):
        expected = [value == max(found) for value in found]
    assert choice(adapted) == list(map(int, expected))


@pytest.mark.parametrize("selector", SELECTORS)
def test_reset_is_what_adapt_left(selector):
    """The choice from images or names stays; one from the stream is forgotten and made again, just so."""
    adapted = adapt("tent", **SELECTORS[selector])
    fresh = book(adapted)
    assert (-1 in choice(adapted)) == (selector in ("probe", "divergence"))
    first = answers(adapted, map(images, range(5)))
    assert -1 not in choice(adapted)
    after = book(adapted)
    adapted.reset()
    assert_same(book(adapted), fresh, "state after reset()")
    assert_same(answers(adapted, map(images, range(5))), first, "answers after reset()")
    assert_same(book(adapted), after, "state after the same batches again")


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("before", [1, 4])
def test_a_file_brings_the_choice_back(selector, before, tmp_path):
    """Resumed in the middle of choosing or after it, without the images; a reset then is the first one's."""
    adapted = adapt("tent", **SELECTORS[selector])
    fresh = book(adapted)
    answers(adapted, map(images, range(before)))
    adapted.save(tmp_path / "state.safetensors")
    resumed = acclimate.load(FACTORY(), tmp_path / "state.safetensors")
    assert_same(book(resumed), book(adapted), "state")
    later = [images(number) for number in range(10, 14)]
    assert_same(answers(resumed, later), answers(adapted, later), "answers")
    assert_same(book(resumed), book(adapted), "state later")
    resumed.reset()
    assert_same(book(resumed), fresh, "state after reset()")


@pytest.mark.parametrize("selector", ["probe", "divergence"])
def test_a_refused_batch_chooses_nothing(selector):
    """An overflow inside the network: the step is undone, with what it had chosen, and the next batch starts anew."""
    settings = {**SELECTORS[selector], "batches": 1}
    adapted, twin = adapt("tent", **settings), adapt("tent", **settings)
    fresh = book(adapted)
    huge = images(0)
    huge[0] *= 1e30
    handle = adapted.module.stage2.register_forward_hook(lambda module, args, output: output * float("nan"))
    adapted(images(0))
    handle.remove()
    assert adapted.last.reason
    assert_same(book(adapted), fresh, "state after a refused step")
    later = [images(number) for number in range(1, 4)]
    assert_same(answers(adapted, later), answers(twin, later), "answers after a refused step")


def test_a_snapshot_brings_the_choice_back():
    adapted = adapt(select="divergence", batches=2)
    adapted(images(0))
    tag = adapted.snapshot()
    first = answers(adapted, map(images, range(1, 4)))
    adapted.restore(tag)
    assert_same(answers(adapted, map(images, range(1, 4))), first, "answers after restore")
    other = copy.deepcopy(adapted)
    adapted.restore(tag)
    with adapted.frozen(), other.frozen():
        assert choice(other) != choice(adapted)
        assert not torch.equal(other(images(5)), adapted(images(5))), "a copy follows its own choice"


def test_merged_answers_by_the_choice():
    adapted = adapt(select="fixed")
    merged = adapted.merged()
    with adapted.frozen():
        assert torch.allclose(merged(images(3)), adapted(images(3)), atol=1e-6)
    everywhere = acclimate.adapt(FACTORY(), "bn", normalization="find").merged()
    assert not torch.allclose(merged(images(3)), everywhere(images(3)), atol=1e-4)


def test_episodes_choose_anew():
    """Forgetting everything before each batch forgets the choice too: each batch is the first."""
    adapted = acclimate.adapt(FACTORY(), acclimate.methods.tent.Tent(episodic=True, normalization="find-selective"))
    for number in range(3):
        adapted(images(number))
        assert adapted.last.forwards == 6


@pytest.mark.parametrize("selector", SELECTORS)
def test_checkpoints_run_the_same_layers_again(selector):
    """A block that backward runs once more groups as it did, also on the batch that the choice is made on."""
    plain = adapt("tent", **SELECTORS[selector])
    again = acclimate.adapt(
        FACTORY(),
        "tent",
        normalization=SelectiveFeatureAwareStatistics(**SELECTORS[selector]),
        memory="checkpointed",
    )
    for number in range(4):
        assert torch.allclose(again(images(number)), plain(images(number)), atol=1e-5)
        assert choice(again) == choice(plain)
        assert scores(again) == pytest.approx(scores(plain), rel=1e-4, abs=1e-9)


def test_views_score_nothing():
    adapted = adapt(select="divergence", batches=5)
    adapted.state.begin(Call((images(0),), {}, 0))
    with torch.no_grad():
        adapted.state.forward(images(0), answering=False)
    assert set(scores(adapted)) == {0}


def test_rows_without_positions_have_no_say():
    """A model whose only norms take rows: the source's answers, and nothing to probe."""
    factory, _ = MODELS["mlp"]
    adapted = adapt(factory=factory)
    source = factory().eval()
    with torch.no_grad():
        assert torch.allclose(adapted(cells(0)), source(cells(0)), atol=1e-6)
    assert adapted.last.forwards == 1


@pytest.mark.parametrize("bad", ["rows", "one", "nan", "integers"])
def test_bad_images_are_named(bad):
    x = {
        "rows": cells(0),
        "one": images(0)[:1],
        "nan": images(0) * float("nan"),
        "integers": (images(0) * 255).to(torch.uint8),
    }[bad]
    with pytest.raises(ValueError, match=r"find-selective|could not measure the source|expected floating point"):
        adapt(images=x)


@pytest.mark.parametrize(
    "bad",
    [
        {"select": "all"},
        {"rule": "median"},
        {"unified": "none"},
        {"level": 1.5},
        {"first": -0.1},
        {"batches": 0},
        {"source_weight": 2},
    ],
    ids=str,
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must"):
        SelectiveFeatureAwareStatistics(**bad)


@pytest.mark.parametrize("preset", ["probe", "divergence", "fixed"])
def test_presets_are_selectors(preset):
    adapted = acclimate.adapt(FACTORY(), "bn", normalization=f"find-selective:{preset}")
    assert adapted.method.config()["normalization"]["select"] == preset
    assert "images" not in adapted.method.config()["normalization"]
