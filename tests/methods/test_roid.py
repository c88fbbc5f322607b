"""ROID against a float64 oracle, the golden vectors of its formulas, and what its guards are for."""

from __future__ import annotations

import math

import pytest
import torch

import acclimate
from acclimate.methods.roid import ROID, likelihood_ratio, smoothed_prior
from methods.reference import entropy
from methods.selected import (
    NETS,
    Counted,
    affine,
    batch_net,
    exported,
    group_net,
    nearest,
    oracle_net,
    same,
    uneven,
    values,
)

GOLDEN = torch.tensor([[2 * math.sin(1.3 * i + 0.7 * c) for c in range(5)] for i in range(4)], dtype=torch.float64)


def view(x, generator=None):
    return x.flip(-1) * 0.9


def close(found, expected):
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def corrected(z, prior):
    p = z.softmax(1)
    rows, classes = p.shape
    mean = [float(p[:, k].sum()) / rows for k in range(classes)]
    extra = max(1 / rows, 1 / classes) / max(mean)
    smooth = torch.tensor([(q + extra) / (1 + extra * classes) for q in mean], dtype=torch.float64)
    if prior == "logits":
        return z * smooth
    return torch.log(p * smooth / (p * smooth).sum(1, keepdim=True)) if prior == "probabilities" else z


def oracle(net, batches, *, learning_rate, temperature=1 / 3, ensembling=0.99, prior="logits", batch_size=None):
    """Seven steps, row by row."""
    start, classes = values(net), 4
    mean, log = torch.full((classes,), 1 / classes, dtype=torch.float64), []
    opt = torch.optim.Adam(affine(net), lr=learning_rate)
    for x in batches:
        z = net(x)
        p, h = z.detach().softmax(1), entropy(z.detach())
        apart = [1 - float(mean @ row / (mean.norm() * row.norm())) for row in p]
        d = [(a - min(apart)) / (max(apart) - min(apart)) for a in apart]
        u = [float((h.max() - each) / (h.max() - h.min())) for each in h]
        kept = [i for i in range(len(x)) if d[i] >= sum(d) / len(d)]
        mean = 0.9 * mean + 0.1 * p.mean(0)
        other, loss = net(view(x[kept])), 0.0
        for i, row in zip(kept, other, strict=True):
            a, b = z[i].softmax(0), row.softmax(0)
            clipped = a.clamp(max=0.99)
            ratio = -(clipped * torch.log(clipped / (1 - clipped) + 1e-5)).sum()
            both = -0.5 * (a * b.log()).sum() - 0.5 * (b * a.log()).sum()
            loss = loss + math.exp(d[i] * u[i] / temperature) * (ratio + both)
        opt.zero_grad()
        (loss / (batch_size or len(x))).backward()
        opt.step()
        with torch.no_grad():
            for parameter, s in zip(affine(net), start, strict=True):
                parameter.copy_(ensembling * parameter + (1 - ensembling) * s)
        log.append({"answer": corrected(z.detach(), prior), "kept": len(kept), "mean": mean})
    return log


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(
    "options",
    [{}, {"prior": "probabilities"}, {"prior": "none"}, {"batch_size": 48, "temperature": 1.0, "ensembling": 0.5}],
)
def test_equals_the_oracle(kind, options):
    twin, batches = oracle_net(kind), uneven(6)
    log = oracle(twin, batches, learning_rate=1e-2, **options)
    adapted = acclimate.adapt(NETS[kind](), ROID(learning_rate=1e-2, views=view, **options))
    for x, step in zip(batches, log, strict=True):
        found = adapted(x)
        found = found.log_softmax(1) if options.get("prior") == "probabilities" else found
        assert torch.allclose(found, step["answer"], rtol=0, atol=1e-9)
        assert adapted.last.selected == step["kept"]
        assert torch.allclose(adapted.state["mean_prediction"], step["mean"], rtol=0, atol=1e-9)
    assert nearest(adapted, twin) < 1e-9
    assert len({step["kept"] for step in log}) > 1


def test_golden_vectors():
    """Five classes, four rows, the mean still uniform."""
    method = ROID()
    state = acclimate.adapt(batch_net(classes=5), method).state
    kept, weight = method.weigh(state, GOLDEN)
    assert kept.tolist() == [False, False, True, True]
    assert close(kept * weight, [0, 0, 20.085537, 10.278506])
    ratio = likelihood_ratio(GOLDEN)
    assert close(ratio, [1.101864, 0.745182, 0.162216, 0.299341])
    assert float((kept * weight * ratio).sum() / 4) == pytest.approx(1.583743, abs=1e-6)
    assert close(state["mean_prediction"], [0.210853, 0.199657, 0.195626, 0.193210, 0.200654])
    smooth = smoothed_prior(GOLDEN.softmax(1))
    assert close(smooth, [0.221486, 0.199321, 0.191340, 0.186558, 0.201295])
    assert torch.allclose(method.corrected(GOLDEN), GOLDEN * smooth)


def test_golden_scaling():
    """With temperature 1 the logarithm of a weight is d u, for rows that are dropped too."""
    method = ROID(temperature=1.0)
    _, weight = method.weigh(acclimate.adapt(batch_net(classes=5), method).state, GOLDEN)
    assert close(weight.log(), [0, 0.446305 * 0.547437, 1, 0.917306 * 0.846702])


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_do_not_differ_are_all_kept(rows):
    """One row, or all alike: 0/0 in both scalings, taken to be 1."""
    method = ROID()
    kept, weight = method.weigh(acclimate.adapt(batch_net(classes=5), method).state, GOLDEN[:1].expand(rows, -1))
    assert kept.all()
    assert torch.allclose(weight, torch.full((rows,), math.exp(3), dtype=torch.float64))


def test_likelihood_ratio_of_a_certain_answer_is_finite():
    z = torch.tensor([[1e4, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    found = likelihood_ratio(z)
    found.sum().backward()
    assert found.isfinite().all()
    assert z.grad.isfinite().all()
    assert float(found[0].detach()) == pytest.approx(-0.99 * math.log(99 + 1e-5))
    assert likelihood_ratio(torch.tensor([[1e4, 0.0]]).bfloat16()).isfinite().all()


def test_the_prior_moves_answers_between_common_and_rare_classes():
    """On logits a negative value grows with a rarer class; on probabilities a rarer class always loses."""
    p = torch.tensor([[0.6, 0.3, 0.1]] * 4, dtype=torch.float64)
    z = p.log()
    smooth = smoothed_prior(p)
    assert smooth.tolist() == sorted(smooth.tolist(), reverse=True)
    assert float(smooth.sum()) == pytest.approx(1)
    after = ROID(prior="probabilities").corrected(z).softmax(1)
    assert after[0, 0] > p[0, 0]
    assert after[0, 2] < p[0, 2]
    assert torch.equal(ROID(prior="none").corrected(z), z)


@pytest.mark.parametrize("prior", ["logits", "probabilities", "none"])
def test_frozen_answers_are_corrected_too(prior):
    adapted = acclimate.adapt(group_net(), ROID(prior=prior, views=view))
    x, y = uneven(2)
    adapted(x)
    with adapted.frozen(), torch.no_grad():
        found, plain = adapted(y), adapted.module(y)
    found = found.log_softmax(1) if prior == "probabilities" else found
    assert torch.allclose(found, corrected(plain, prior), rtol=0, atol=1e-12)
    assert adapted.method.plain() is (prior == "none")
    if prior == "none":
        assert torch.allclose(adapted.merged()(y), found, rtol=0, atol=1e-12)
    else:
        with pytest.raises(ValueError, match="more than those of a model"):
            adapted.merged()


def test_with_nothing_kept_of_what_is_learned_the_weights_are_the_source():
    adapted = acclimate.adapt(batch_net(), ROID(ensembling=0.0, views=view))
    for x in uneven(3):
        adapted(x)
    for weight, source in zip(adapted.state.weights.values(), adapted.state.sources(), strict=True):
        assert torch.equal(weight, source)


def test_counted_passes():
    """One forward, and one of the views of the kept rows; each with a graph."""
    for kind in NETS:
        net = Counted(NETS[kind]())
        adapted = acclimate.adapt(net, ROID(views=view))
        for x in uneven(4):
            net.rows.clear()
            adapted(x)
            assert net.rows == [(12, True), (int(adapted.last.selected), True)]
            assert adapted.last.backwards == 1


def test_a_reset_makes_the_mean_uniform_again():
    adapted = acclimate.adapt(batch_net(), ROID(views=view))
    fresh = exported(adapted)
    adapted(uneven(1)[0])
    assert not torch.allclose(adapted.state["mean_prediction"], torch.full((4,), 0.25, dtype=torch.float64))
    adapted.reset()
    assert same(exported(adapted), fresh)
    assert adapted.state["mean_prediction"].tolist() == [0.25] * 4


def test_images_out_of_range_are_refused_by_the_library_views_only():
    x = uneven(1)[0] * 4 - 2
    with pytest.raises(ValueError, match=r"views of ROID .* \[0, 1\]"):
        acclimate.adapt(batch_net(), "roid")(x)
    assert acclimate.adapt(batch_net(), ROID(views=view))(x).isfinite().all()


def test_published_constants():
    method = ROID()
    assert (method.temperature, method.ensembling, method.prior) == (1 / 3, 0.99, "logits")
    assert (ROID.preset("imagenet").learning_rate, ROID.preset("imagenet").optimizer) == (2.5e-4, "sgd")


@pytest.mark.parametrize("options", [{"temperature": 0}, {"prior": "labels"}, {"ensembling": 1.5}, {"batch_size": -1}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        ROID(**options)
