"""DABN: published numbers, which of two layers runs, and what is kept of a stream."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.core.inputs import Call
from acclimate.methods.datta import DATTA
from acclimate.methods.tent import Tent
from acclimate.normalization.alpha import AlphaStatistics
from acclimate.normalization.damped import DampedStatistics
from acclimate.normalization.diversity import DiversityStatistics
from acclimate.normalization.find_selective import SelectiveFeatureAwareStatistics
from acclimate.normalization.instance_aware import InstanceAwareStatistics
from acclimate.normalization.learned_mixture import LearnedMixture
from acclimate.parts.diversity.quantile import Quantile
from acclimate.parts.diversity.reference import Reference
from acclimate.parts.diversity.score import diversity_score
from methods.reference import far_net as net
from methods.reference import stream
from normalization.test_statistics import Whole, fixture

SLOT = "normalization.diversity.record"
MODES = ("single", "multiple")


ROWS = [  # normalisation, y[0,:,0,0], sum, sum of squares
    (DiversityStatistics(mode="single"), (-1.630731, -0.082426, 0.290927), 16.677778, 153.382846),
    (DiversityStatistics(mode="multiple"), (-1.583737, 0.006485, 0.496386), 24.201639, 177.537922),
    (DiversityStatistics(mode="single", multiple="damped"), (-1.630731, -0.082426, 0.290927), 16.677778, 153.382846),
    (DiversityStatistics(mode="multiple", multiple="damped"), (-1.555619, 0.054357, 0.637861), 29.071618, 196.994385),
    (DampedStatistics(k=0.5), (-1.493551, 0.043803, 0.815841), 25.920057, 169.284811),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].name)
def test_published_numbers(row):
    normalization, first, total, squares = row
    layer, x = fixture()
    y = acclimate.adapt(Whole(layer), "source", normalization=normalization)(x)
    assert y[0, :, 0, 0].tolist() == pytest.approx(first, abs=2e-6)
    assert float(y.sum()) == pytest.approx(total, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(squares, abs=1e-4)


def test_damping_of_everything_is_instance_aware():
    layer, x = fixture()
    found = acclimate.adapt(Whole(layer), "source", normalization=DampedStatistics(k=0.5, share=1.0))(x)
    aware = InstanceAwareStatistics(k=0.5)
    torch.testing.assert_close(found, acclimate.adapt(Whole(layer), "source", normalization=aware)(x))
    none = acclimate.adapt(Whole(layer), "source", normalization=DampedStatistics(share=0.0))(x)
    torch.testing.assert_close(none, layer(x))
    single = acclimate.adapt(Whole(layer), "source", normalization=DampedStatistics(k=0))(x[..., :1, :1])
    torch.testing.assert_close(single, layer(x[..., :1, :1]))


def even(count: int, contrast: float = 0.2) -> Tensor:
    """Alike images: a low score."""
    return torch.full((count, 3, 8, 8), 0.5, dtype=torch.float64) + contrast * noise(count, 1)


def noise(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def uneven(count: int, seed: int = 2) -> Tensor:
    """Half of them dark and red, half bright and blue: a high score."""
    x = 0.5 + 0.2 * noise(count, seed)
    x[::2, 0] += 0.3
    x[1::2, 2] -= 0.3
    return x.clamp(0, 1)


def score_of(model: nn.Sequential, x: Tensor) -> float:
    """From the definition, on the model as it came."""
    with torch.no_grad():
        features = model[0](x)
    return float(diversity_score(features, model[1].running_mean))


def adapted_by(normalization: Any, method: Any = "bn") -> Adapted:
    return acclimate.adapt(net(), method, normalization=normalization)


def scores_of(adapted: Adapted) -> list[float]:
    kept = adapted.state.table.slots[SLOT].tensor[3:]
    return kept[kept >= 0].tolist()


TWO = DiversityStatistics(discriminator=Quantile(warm_up=2, share=0.4))


def test_the_first_layer_decides_for_all():
    """High first, then low: as the second normalisation alone would, then as the first."""
    high, low = uneven(8), even(8)
    assert score_of(net(), low) < score_of(net(), high)
    adapted = adapted_by(TWO)
    for x, weight in ((high, 0.85), (low, 0.60), (high, 0.85)):
        alone = adapted_by(AlphaStatistics(source_weight=weight))
        torch.testing.assert_close(adapted(x), alone(x), rtol=0, atol=1e-12)
    assert scores_of(adapted) == pytest.approx([score_of(net(), x) for x in (high, low, high)], rel=1e-6)


@pytest.mark.parametrize(("single", "multiple"), [("batch", "source"), ("ema", "instance_aware"), ("source", "robust")])
def test_any_two_normalisations(single, multiple):
    """Each batch is answered as by the one it goes to, alone; one that keeps statistics follows its own batches."""
    adapted = adapted_by(
        DiversityStatistics(discriminator=Quantile(warm_up=2, share=0.4), single=single, multiple=multiple)
    )
    alone = {"single": adapted_by(single), "multiple": adapted_by(multiple)}
    for x, mode in ((uneven(8), "multiple"), (even(8), "single"), (uneven(8, 3), "multiple"), (even(8, 0.1), "single")):
        torch.testing.assert_close(adapted(x), alone[mode](x), rtol=0, atol=1e-12)


def test_one_normalisation_for_both_is_that_one():
    both, alone = adapted_by(DiversityStatistics(single="ema", multiple="ema")), adapted_by("ema")
    for x in stream(3):
        assert torch.equal(both(x), alone(x))
    names = [name for name in both.state.table.slots if name != SLOT]
    assert names == list(alone.state.table.slots)


@pytest.mark.parametrize("given", ["name", "images"])
def test_equal_choices_of_layers_are_one(given):
    """Two of the same settings choose and answer as one of them alone, and note the same."""
    images = noise(32, 5)
    pair = [
        SelectiveFeatureAwareStatistics(images=images) if given == "images" else "find-selective:fixed"
        for _ in range(3)
    ]
    both, alone = adapted_by(DiversityStatistics(single=pair[0], multiple=pair[1])), adapted_by(pair[2])
    for x in stream(3):
        assert torch.equal(both(x), alone(x))
        assert both.last is not None and alone.last is not None
        assert both.last.values == alone.last.values
        assert "grouped_layers" in both.last.values
        assert both.last.forwards == 1


def test_two_that_differ_in_images_alone_both_learn():
    sources = [(stream(number, size=16)[-1], torch.arange(16) % 4) for number in (1, 2)]
    config = DiversityStatistics(
        **{mode: LearnedMixture(source=source, epochs=0) for mode, source in zip(MODES, sources, strict=True)}
    )
    found: Any = adapted_by(config).state.layers[0]
    weights = [found.inner[mode].test_weight for mode in MODES]
    assert not torch.equal(*weights)
    for weight, source in zip(weights, sources, strict=True):
        alone: Any = adapted_by(LearnedMixture(source=source, epochs=0)).state.layers[0]
        torch.testing.assert_close(weight, alone.test_weight)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("other", ["alpha", "ema"])
def test_notes_of_either_reach_the_record(steps, other):
    """FIND tells of batches too small for groups; a decision is still taken once a batch."""
    adapted = acclimate.adapt(
        net(), DATTA(steps=steps, normalization=DiversityStatistics(single=other, multiple="find"))
    )
    for kept, size in enumerate((8, 3, 4), start=1):
        adapted(uneven(size))
        assert adapted.last is not None
        assert adapted.last.values.get("one_group") == (1 if size < 4 else None)
        assert len(scores_of(adapted)) == kept
    with adapted.frozen():
        adapted(uneven(3))
    assert len(scores_of(adapted)) == 3


def test_only_answers_are_kept_and_frozen_ones_decide_by_them():
    adapted = adapted_by(TWO)
    adapted(uneven(8))
    before = scores_of(adapted)
    with adapted.frozen():
        adapted(even(8))
    state = adapted.state
    state.begin(Call((even(8),), {}, 0))
    with torch.no_grad():
        state.forward(even(8), answering=False)
    assert scores_of(adapted) == before
    adapted(even(8, 0.1))
    with adapted.frozen():
        low, high = adapted(even(8)), adapted(uneven(8, 3))
    torch.testing.assert_close(low, adapted_by(AlphaStatistics(source_weight=0.60))(even(8)), rtol=0, atol=1e-12)
    torch.testing.assert_close(high, adapted_by(AlphaStatistics(source_weight=0.85))(uneven(8, 3)), rtol=0, atol=1e-12)
    assert len(scores_of(adapted)) == 2


def test_groups_are_decided_one_by_one():
    adapted = adapted_by(TWO)
    for x in (uneven(8), even(8)):
        adapted(x)
    parts = [even(8, 0.1), uneven(8, 3), even(8, 0.15)]
    adapted.state.begin(Call((parts[0],), {}, 0))
    with torch.no_grad():
        single = torch.cat([adapted.state.forward(x, answering=False) for x in parts])
        folded = adapted.state.forward(torch.cat(parts), answering=False, groups=3)
    torch.testing.assert_close(folded, single, rtol=0, atol=1e-12)
    shares = [each.share for each in adapted.state.layers[0].watch.decisions]
    assert shares == [0.0, 1.0, 0.0]


def test_the_newest_scores_are_kept():
    adapted = adapted_by(DiversityStatistics(kept=3))
    batches = stream(5)
    for x in batches:
        adapted(x)
    assert scores_of(adapted) == pytest.approx([score_of(net(), x) for x in batches[2:]], rel=1e-6)


def test_a_batch_of_one_counts_as_mixed_and_is_not_kept():
    adapted = adapted_by(DiversityStatistics(discriminator=Quantile(warm_up=1, share=1.0)))
    for x in (uneven(8), even(8)):
        adapted(x)
    found = adapted(even(1))
    torch.testing.assert_close(found, adapted_by(AlphaStatistics(source_weight=0.85))(even(1)), rtol=0, atol=1e-12)
    assert len(scores_of(adapted)) == 2


def test_soft_weights():
    adapted = adapted_by(DiversityStatistics(discriminator=Quantile(warm_up=2, share=0.4), soft=True))
    for x in (*stream(6), uneven(8)):
        adapted(x)
    x = stream(7)[-1]
    found = adapted(x)
    decision = adapted.state.layers[0].watch.decisions[0]
    assert 0 < decision.share < 1
    weight = 0.60 + 0.25 * decision.share
    torch.testing.assert_close(found, adapted_by(AlphaStatistics(source_weight=weight))(x), rtol=0, atol=1e-12)


def test_delayed_decisions_are_those_of_the_batch_before():
    adapted = adapted_by(DiversityStatistics(discriminator=Quantile(warm_up=2, share=0.4), delayed=True))
    weights = (0.85, 0.85, 0.60, 0.85)
    for x, weight in zip((uneven(8), even(8), uneven(8, 3), even(8, 0.1)), weights, strict=True):
        torch.testing.assert_close(adapted(x), adapted_by(AlphaStatistics(source_weight=weight))(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("probe", ["4", 0.5])
def test_a_later_layer_decides_and_those_before_it_take_batches_for_mixed(probe):
    adapted = adapted_by(DiversityStatistics(discriminator=Quantile(warm_up=2, share=0.4), probe=probe))
    twin = net()
    by_hand = nn.Sequential(*(adapted_by(AlphaStatistics(source_weight=0.85)).module[i] for i in range(4)))
    for x in (uneven(8), even(8)):
        found = adapted(x)
        with torch.no_grad():
            inner = by_hand(x)
        assert scores_of(adapted)[-1] == pytest.approx(float(diversity_score(inner, twin[4].running_mean)), rel=1e-6)
    second = adapted_by(AlphaStatistics(source_weight=0.60)).module[4]
    with torch.no_grad():
        expected = net()[8](net()[6](second(inner).relu()).flatten(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_merged_answers_like_the_frozen_one():
    adapted = acclimate.adapt(net(), Tent(learning_rate=1e-2), normalization=TWO)
    for x in (uneven(8), even(8), uneven(8, 3)):
        adapted(x)
    merged = adapted.merged()
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in net().named_parameters()]
    for model in (merged, copy.deepcopy(merged)):
        for x in (even(8), uneven(8), even(8, 0.1)):
            with adapted.frozen(), torch.no_grad():
                torch.testing.assert_close(model(x), adapted(x), rtol=0, atol=1e-12)
    other = uneven(8, 4) * 0.5
    with torch.no_grad():
        before = merged(other)
        merged[1].weight.mul_(2)
        assert not torch.allclose(merged(other), before), "its weights are those that answer"


def test_reset_and_restore_forget_scores():
    adapted = adapted_by(TWO)
    first = [adapted(x) for x in (uneven(8), even(8))]
    tag = adapted.snapshot()
    adapted(uneven(8, 3))
    adapted.restore(tag)
    assert len(scores_of(adapted)) == 2
    adapted.reset()
    assert scores_of(adapted) == []
    assert all(torch.equal(adapted(x), y) for x, y in zip((uneven(8), even(8)), first, strict=True))


def test_hooks_run_once():
    model, calls = net(), []
    model[1].register_forward_hook(lambda *_: calls.append(1) and None)
    acclimate.adapt(model, "bn", normalization=TWO)(even(8))
    assert len(calls) == 1


def test_a_reference_is_measured_once_and_saved(tmp_path):
    """From images whose shifts the first layer tells apart; a loaded or reset adaptation has the border still."""
    source = stream(1, size=64)[0]
    reference = Reference(source=source, samples=64, batch_size=16, batches=10)
    normalization = DiversityStatistics(discriminator=reference, score="energy")
    adapted = adapted_by(normalization)
    low, high = adapted.state.table.slots[SLOT].tensor[1:3].tolist()
    assert high >= 1.1 * low > 0
    adapted.save(tmp_path / "state")
    adapted(stream(1)[0])
    assert adapted.state.layers[0].watch.decisions[0].threshold == pytest.approx((low * high) ** 0.5, rel=1e-6)
    adapted.reset()
    loaded = acclimate.load(net(), tmp_path / "state")
    for each in (adapted, loaded):
        assert each.state.table.slots[SLOT].tensor[1:3].tolist() == [low, high]


def test_a_reference_that_tells_nothing_apart_is_logged(caplog):
    """A first layer that sees nothing of an image: every batch counts as mixed, and the log says so."""
    model = net()
    with torch.no_grad():
        model[0].weight.zero_()
    reference = Reference(source=stream(1, size=32)[0], batches=3, batch_size=8)
    adapted = acclimate.adapt(model, "bn", normalization=DiversityStatistics(discriminator=reference))
    assert "does not tell them apart" in caplog.text
    adapted(even(8))
    assert adapted.state.layers[0].watch.decisions[0].threshold is None


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"Reference\(source=images\)"):
        adapted_by(DiversityStatistics(discriminator="reference"))
    with pytest.raises(ValueError, match=r"probe 'stem' is no batch norm of this model. It has: 1, 4"):
        adapted_by(DiversityStatistics(probe="stem"))
    with pytest.raises(ValueError, match="running statistics"):
        acclimate.adapt(Whole(nn.BatchNorm2d(3, track_running_stats=False)), "bn", normalization="diversity")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mode": "both"}, "mode must be one of"),
        ({"probe": 1.0}, "probe must be a name, or a share"),
        ({"soft": True, "multiple": "damped"}, "soft=True blends"),
        ({"single": "diversity"}, "cannot be one of two"),
        ({"single": "dua"}, "cannot be one of two"),
        ({"multiple": "find-selective"}, "cannot be one of two"),
        ({"multiple": "find-selective:divergence"}, "cannot be one of two"),
        (
            {"single": "find-selective:fixed", "multiple": SelectiveFeatureAwareStatistics(select="fixed", first=0.1)},
            "room for one choice",
        ),
        (
            {mode: SelectiveFeatureAwareStatistics(images=noise(32, seed)) for seed, mode in enumerate(MODES)},
            "room for one choice",
        ),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        DiversityStatistics(**settings)
