"""FIND against its published fixture, loops over samples and groups, its limits, and what it does to a stream."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.inputs import Call
from acclimate.models.residual import ResidualNet
from acclimate.normalization.find import DESCRIPTORS, FeatureAwareLayer, FeatureAwareStatistics, group_counts, pooled
from acclimate.parts.neighbours import METRICS, membership, nearest
from methods.reference import small_net, stream
from normalization.test_statistics import Whole, fixture


def layer_of(source: nn.Module, **settings: object) -> FeatureAwareLayer:
    return FeatureAwareLayer(source, "layer", FeatureAwareStatistics(**settings))


def answer(source: nn.Module, x: torch.Tensor, **settings: object) -> torch.Tensor:
    return acclimate.adapt(Whole(source), "source", normalization=FeatureAwareStatistics(**settings))(x)


def test_published_instance_means_and_neighbours():
    layer, x = fixture()
    mean, _ = layer_of(layer).own(x)
    expected = [
        (-0.5, 0.2, -0.75),
        (0.85, 0.9, 1.5),
        (0.1, -0.45, -0.45),
        (0.35, 1.35, 1.8),
        (0.15, 0, -0.7),
        (0.4, 0.7, 1.0),
    ]
    assert torch.allclose(mean, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)  # six digits
    assert nearest(mean).tolist() == [4, 5, 4, 5, 2, 1]
    cosines = nn.functional.normalize(mean) @ nn.functional.normalize(mean).T
    for one, other, value in ((0, 4, 0.680798), (1, 5, 0.988702), (2, 4, 0.715555), (3, 5, 0.986346)):
        assert float(cosines[one, other]) == pytest.approx(value, abs=1e-6)
    labels = layer_of(layer).labels(*layer_of(layer).own(x)).tolist()
    assert len({labels[0], labels[2], labels[4]}) == len({labels[1], labels[3], labels[5]}) == 1
    assert labels[0] != labels[1]


GROUPS = [  # unbiased, variance of {0, 2, 4}, of {1, 3, 5}
    (True, (0.419444, 0.406111, 0.508333), (0.541667, 0.406111, 0.526667)),
    (False, (0.336389, 0.323056, 0.385556), (0.418889, 0.323056, 0.422222)),
]


@pytest.mark.parametrize(("unbiased", "even", "odd"), GROUPS)
def test_published_group_statistics(unbiased, even, odd):
    layer, x = fixture()
    ours = layer_of(layer, unbiased=unbiased)
    own = ours.own(x)
    mean, variance = pooled(*own, ours.members(*own))
    assert mean[0].tolist() == pytest.approx([-0.083333, -0.083333, -0.633333], abs=1e-6)
    assert mean[1].tolist() == pytest.approx([0.533333, 0.983333, 1.433333], abs=1e-6)
    for places, expected in (((0, 2, 4), even), ((1, 3, 5), odd)):
        for place in places:
            assert variance[place].tolist() == pytest.approx(expected, abs=1e-6)


def test_published_output():
    layer, x = fixture()
    y = answer(layer, x)
    first = (-1.528594, -0.953574, -0.666064, -0.091045, 0.039567, 0.235567, 0.333567, 0.529567)
    first += (0.973770, -2.997707, -2.556432, -1.673882)
    last = (-0.402067, 0.158957, 0.439469, 1.000493, 0.180033, 0.376033, 0.474033, 0.670033)
    last += (0.281588, 1.162176, 1.602470, 2.483058)
    assert y[0].flatten().tolist() == pytest.approx(first, abs=2e-6)
    assert y[5].flatten().tolist() == pytest.approx(last, abs=2e-6)
    assert float(y.sum()) == pytest.approx(24.181453, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(160.582512, abs=1e-4)
    biased = answer(layer, x, unbiased=False)
    assert float(biased.sum()) == pytest.approx(24.488384, abs=2e-5)
    assert float((biased * biased).sum()) == pytest.approx(165.313792, abs=1e-4)


def test_all_weight_on_the_source_is_the_source():
    layer, x = fixture()
    y = answer(layer, x, source_weight=1)
    assert torch.allclose(y, layer(x), atol=1e-12)
    assert float(y.sum()) == pytest.approx(29.071618, abs=2e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_one_group_is_the_batch(alpha):
    """Without the source and with biased variance: batch norm itself. With it: alpha-mixing of the same moments."""
    layer, x = fixture()
    y = answer(layer, x, grouping="whole", unbiased=False, source_weight=alpha)
    mean = (1 - alpha) * x.mean((0, 2, 3)) + alpha * layer.running_mean
    variance = (1 - alpha) * x.var((0, 2, 3), correction=0) + alpha * layer.running_var
    assert torch.allclose(y, nn.functional.batch_norm(x, mean, variance, layer.weight, layer.bias), atol=1e-12)


def test_one_sample_is_blended_with_its_own_statistics():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization="find")
    for row in range(6):
        one = x[row : row + 1]
        mean = 0.8 * layer.running_mean + 0.2 * one.mean((0, 2, 3))
        variance = 0.8 * layer.running_var + 0.2 * one.var((0, 2, 3), correction=1)
        expected = nn.functional.batch_norm(one, mean, variance, layer.weight, layer.bias)
        assert torch.allclose(adapted(one), expected, atol=1e-12)
        assert adapted.last.values["one_group"] == 1


def test_the_record_names_batches_too_small_for_groups():
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization="find")
    for count in (1, 2, 3, 4, 6):
        adapted(x[:count])
        assert ("one_group" in adapted.last.values) == (count < 4)


def by_loops(x: torch.Tensor, layer: nn.Module, alpha: float, labels: list[int]) -> torch.Tensor:
    """Every group's pixels pooled, channel by channel: equal to the law of total variance with biased variances."""
    out = torch.empty_like(x)
    for label in set(labels):
        rows = [row for row, mine in enumerate(labels) if mine == label]
        for c in range(x.shape[1]):
            values = x[rows, c].flatten().tolist()
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
            m = alpha * float(layer.running_mean[c]) + (1 - alpha) * mean
            v = alpha * float(layer.running_var[c]) + (1 - alpha) * variance
            out[rows, c] = (x[rows, c] - m) / (v + layer.eps) ** 0.5 * layer.weight[c] + layer.bias[c]
    return out


@pytest.mark.parametrize("shape", [(9, 3, 7), (9, 3, 4, 5), (9, 3, 2, 3, 4)])
@pytest.mark.parametrize("descriptor", DESCRIPTORS)
@pytest.mark.parametrize("metric", METRICS)
def test_against_loops(shape, descriptor, metric):
    """For signals, images and volumes, and for every way to compare samples."""
    layer, _ = fixture()
    kind = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](3).double().eval()
    kind.load_state_dict(layer.state_dict())
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x += torch.randn(shape[0], 3, *(1,) * (len(shape) - 2), generator=generator, dtype=torch.float64)
    settings = {"descriptor": descriptor, "metric": metric, "unbiased": False, "source_weight": 0.3}
    ours = layer_of(kind, **settings)
    labels = ours.labels(*ours.own(x)).tolist()
    assert len(set(labels)) > 1
    assert torch.allclose(ours(x), by_loops(x, kind, 0.3, labels), atol=1e-11)


def test_descriptors():
    layer, x = fixture()
    mean, variance = x.mean((2, 3)), x.var((2, 3))
    source = layer.running_mean, layer.running_var
    both = DESCRIPTORS["mean_std"](mean, variance, source, 1e-5)
    deviation = (variance + 1e-5).sqrt()
    assert torch.allclose(both[:, :3], mean / mean.square().mean().sqrt())
    assert torch.allclose(both[:, 3:], deviation / deviation.square().mean().sqrt())
    centred = DESCRIPTORS["source_centered"](mean, variance, source, 1e-5)
    assert torch.allclose(centred, (mean - source[0]) / (source[1] + 1e-5).sqrt())


def test_what_a_descriptor_sees():
    """Samples that differ in variance alone are told apart by their deviations only."""
    layer, _ = fixture()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 3, 6, 6, generator=generator, dtype=torch.float64)
    noise -= noise.mean((2, 3), keepdim=True)
    noise /= noise.std((2, 3), keepdim=True)
    scale = torch.tensor([1.0, 5.0]).repeat(4).view(8, 1, 1, 1)
    x = noise * scale + torch.tensor([1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    for descriptor, apart in (("mean", False), ("mean_std", True)):
        ours = layer_of(layer, descriptor=descriptor, metric="euclidean")
        labels = ours.labels(*ours.own(x))
        assert (len(set(labels[::2].tolist()) & set(labels[1::2].tolist())) == 0) == apart


def test_one_dimensional_norms_and_rows_without_positions_keep_the_source():
    layer = nn.BatchNorm1d(3).double().eval()
    layer.load_state_dict(fixture()[0].state_dict())
    generator = torch.Generator().manual_seed(1)
    for shape in ((8, 3), (8, 3, 5)):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        assert torch.equal(answer(layer, x), layer(x))
    assert torch.equal(layer_of(layer)(x[..., 0]), layer(x[..., 0]))


def test_one_position_has_no_variance_of_its_own():
    layer, x = fixture()
    x = x[..., :1, :1]
    ours = layer_of(layer, source_weight=0.3)
    labels = ours.labels(*ours.own(x)).tolist()
    assert len(set(labels)) > 1
    assert torch.allclose(answer(layer, x, source_weight=0.3), by_loops(x, layer, 0.3, labels), atol=1e-12)


def test_an_empty_batch_is_an_empty_answer():
    layer, x = fixture()
    assert layer_of(layer)(x[:0]).shape == (0, 3, 2, 2)


def test_duplicates_are_a_group():
    layer, x = fixture()
    twice = torch.cat([x[:1], x[1:2]]).repeat(3, 1, 1, 1)
    labels = layer_of(layer).labels(*layer_of(layer).own(twice)).tolist()
    assert labels == [0, 1, 0, 1, 0, 1]
    y = answer(layer, twice)
    assert torch.allclose(y[0], y[2]) and torch.allclose(y[1], y[5])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_passes_through_and_ends(bad):
    layer, x = fixture()
    x[2, 1, 0, 0] = bad
    y = layer_of(layer)(x)
    assert y.shape == x.shape and bool(y[2].isnan().any())


def test_gradients_go_through_the_statistics():
    """Finite differences, with labels held: they are constant around a batch without ties."""
    layer, x = fixture()
    ours = layer_of(layer, source_weight=0.3)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ours(x), x)
    (through,) = torch.autograd.grad(ours(x)[0].sum(), x)
    assert float(through[2].abs().max()) > 1e-3, "a sample of the same group moves its statistics"
    assert float(through[1].abs().max()) == 0, "one of another group does not"


def test_the_order_of_samples_does_not_matter():
    layer, x = fixture()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.allclose(answer(layer, x)[order], answer(layer, x[order]), atol=1e-12)


def test_samples_of_another_domain_do_not_matter():
    """Where groups are clear an answer is that of its group alone, whatever else is in the batch; not by the batch."""
    layer, _ = fixture()
    generator = torch.Generator().manual_seed(2)
    centres = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]], dtype=torch.float64)
    one, other = (
        centre.view(1, 3, 1, 1) + torch.randn(3, 3, 4, 4, generator=generator, dtype=torch.float64)
        for centre in centres
    )
    ours = layer_of(layer)
    assert torch.allclose(ours(torch.cat([one, other]))[:3], ours(one), atol=1e-12)
    whole = layer_of(layer, grouping="whole")
    assert not torch.allclose(whole(torch.cat([one, other]))[:3], whole(one), atol=1e-2)


def test_views_are_normalised_one_by_one():
    adapted = acclimate.adapt(small_net(), "source", normalization="find")
    parts = stream(3, seed=9)
    adapted.state.begin(Call((parts[0],), {}, 0))
    with torch.no_grad():
        single = torch.cat([adapted.state.forward(x, answering=False) for x in parts])
        folded = adapted.state.forward(torch.cat(parts), answering=False, groups=3)
        mixed = adapted.state.forward(torch.cat(parts), answering=False)
    assert torch.allclose(folded, single, rtol=0, atol=1e-12)
    assert float((mixed - single).abs().max()) > 1e-3


def test_nothing_is_carried_over():
    """Feeding one batch, another, and the first again gives bit-identical answers; nothing is declared."""
    net = small_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    adapted = acclimate.adapt(net, "bn", normalization="find")
    one, *others = stream(10)
    first = adapted(one)
    for x in others:
        adapted(x)
    assert torch.equal(adapted(one), first)
    assert not adapted.state.table.slots and adapted.last.forwards == 1
    for name, tensor in adapted.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_half_precision_measures_in_single():
    """The same values in bfloat16 and in float32 have the same groups, and answers within bfloat16's rounding."""
    layer, x = fixture()
    half = nn.BatchNorm2d(3).bfloat16().eval()
    half.load_state_dict(layer.state_dict())
    wide = nn.BatchNorm2d(3).eval()
    wide.load_state_dict(half.state_dict())
    x = x.bfloat16()
    ours, theirs = layer_of(half), layer_of(wide)
    assert torch.equal(ours.labels(*ours.own(x)), theirs.labels(*theirs.own(x.float())))
    y, expected = ours(x).detach(), theirs(x.float()).detach()
    assert y.dtype == torch.bfloat16
    assert float((y.float() - expected).abs().max()) < 3e-2 * float(expected.abs().max())


def test_autocast_keeps_groups():
    """Under autocast the statistics are float32's: one layer answers as outside of it."""
    layer, x = fixture()
    single = nn.BatchNorm2d(3).eval()
    single.load_state_dict(layer.state_dict())
    ours, x = layer_of(single), x.float()
    expected = ours(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), expected)


def test_group_counts():
    net = ResidualNet(5, widths=(8, 16, 32), blocks=1).eval()
    adapted = acclimate.adapt(net, "bn", normalization="find")
    x = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    counts = group_counts(adapted.merged(), x)
    assert list(counts) == [name for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(1 <= count <= 8 for count in counts.values())
    merged = adapted.merged()
    before = merged(x)
    group_counts(merged, x)
    assert torch.equal(merged(x), before), "nothing of the count stays"


def test_membership_is_of_the_statistics_kind():
    assert membership(torch.tensor([0, 1, 0]), torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    "bad",
    [{"source_weight": 1.1}, {"descriptor": "median"}, {"metric": "manhattan"}, {"grouping": "kmeans"}],
    ids=str,
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must"):
        FeatureAwareStatistics(**bad)


def test_missing_source_statistics_are_named():
    with pytest.raises(ValueError, match=r"running statistics.*Choose normalization="):
        acclimate.adapt(Whole(nn.BatchNorm2d(3, track_running_stats=False)), "source", normalization="find")


def test_a_model_without_batch_norms_is_told_which_normalization_asks_for_them():
    with pytest.raises(ValueError, match=r"batch normalisation layers, here by normalization='find', but Sequential"):
        acclimate.adapt(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), "bn", normalization="find")
