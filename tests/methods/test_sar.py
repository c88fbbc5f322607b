"""SAR against a float64 oracle of its seven steps; recovery, counted passes and what nothing sure does."""

from __future__ import annotations

import math

import pytest
import torch

import acclimate
from acclimate.methods.sar import SAR
from acclimate.models.residual import ResidualNet
from methods.reference import entropy
from methods.selected import NETS, Counted, affine, exported, group_net, nearest, oracle_net, put, same, uneven, values

SETTINGS = {"learning_rate": 2e-2, "margin": 0.75, "radius": 0.4}


def oracle(net, batches, *, margin, radius, learning_rate, recovery=0.0):
    """As published, with the moving mean unset after a recovery, which follows the update at once."""
    start = values(net)

    def sgd():
        return torch.optim.SGD(affine(net), lr=learning_rate, momentum=0.9, nesterov=True)

    opt, mean, log = sgd(), None, []
    for x in batches:
        z = net(x)
        step = {"answer": z.detach().clone(), "sure": 0, "stayed": 0, "recovered": False}
        log.append(step)
        limit = margin * math.log(z.shape[1])
        first = entropy(z) < limit
        step["sure"] = int(first.sum())
        if not first.any():
            continue
        gradients = torch.autograd.grad(entropy(z)[first].mean(), affine(net))
        norm = torch.cat([g.flatten() for g in gradients]).norm() + 1e-12
        own = values(net)
        put(net, [w + radius * g / norm for w, g in zip(own, gradients, strict=True)])
        doubt = entropy(net(x))
        second = first & (doubt < limit)
        step["stayed"] = int(second.sum())
        if not second.any():
            put(net, own)
            continue
        loss = doubt[second].mean()
        opt.zero_grad()
        loss.backward()
        put(net, own)
        opt.step()
        mean = float(loss.detach()) if mean is None else 0.9 * mean + 0.1 * float(loss.detach())
        step["mean"] = mean
        if mean < recovery * math.log(z.shape[1]):
            put(net, start)
            opt, mean, step["recovered"] = sgd(), None, True
    return log


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("recovery", [0.0, 0.6])
def test_equals_the_oracle(kind, recovery):
    twin, batches = oracle_net(kind), uneven(8)
    log = oracle(twin, batches, recovery=recovery, **SETTINGS)
    adapted = acclimate.adapt(NETS[kind](), SAR(recovery=recovery, **SETTINGS))
    before = False
    for x, step in zip(batches, log, strict=True):
        assert torch.allclose(adapted(x), step["answer"], rtol=0, atol=1e-7)
        assert adapted.last.selected == step["sure"]
        assert adapted.last.values.get("stayed", 0) == step["stayed"]
        assert adapted.last.restarted is before
        before = step["recovered"]
        if "mean" in step:
            assert float(adapted.state["mean_loss"]) * math.log(4) == pytest.approx(step["mean"], abs=1e-7)
    if not before:
        assert nearest(adapted, twin) < 1e-7
    assert adapted.last.distance > 0
    assert any(step["sure"] > step["stayed"] for step in log), "some rows are sure only before the perturbation"
    assert any(step["recovered"] for step in log) == (recovery > 0)


@pytest.mark.parametrize("kind", NETS)
def test_after_a_recovery_the_state_is_that_of_the_source(kind):
    """The batch after a collapse is answered, and learned from, as if it were the first."""
    first, second, third = uneven(3)
    adapted = acclimate.adapt(NETS[kind](), SAR(recovery=1.0, **SETTINGS))
    adapted(first)
    assert adapted.last.updated
    assert 0 <= float(adapted.state["mean_loss"]) < 1
    fresh = acclimate.adapt(NETS[kind](), SAR(recovery=1.0, **SETTINGS))
    assert torch.equal(adapted(second), fresh(second))
    assert adapted.last.restarted
    assert not fresh.last.restarted
    assert same(exported(adapted), exported(fresh))
    again = acclimate.adapt(NETS[kind](), SAR(recovery=1.0, **SETTINGS))
    assert torch.equal(adapted(third), again(third)), "unset, so that it is not the old mean that decides"


def test_a_recovery_happens_even_where_nothing_is_sure():
    first, second = uneven(2)
    adapted = acclimate.adapt(group_net(), SAR(recovery=1.0, **SETTINGS))
    fresh = exported(adapted)
    adapted(first)
    assert adapted.last.distance > 0
    object.__setattr__(adapted.method, "margin", 0.0)
    adapted(second)
    assert not adapted.last.updated
    assert same(exported(adapted), fresh)


def test_recovery_is_the_published_share():
    assert SAR().recovery * math.log(1000) == pytest.approx(0.2)
    assert SAR().recovery * math.log(10) == pytest.approx(0.0667, abs=1e-4)


@pytest.mark.parametrize("kind", NETS)
def test_nothing_is_learned_where_nothing_is_sure(kind):
    adapted = acclimate.adapt(NETS[kind](), SAR(margin=0.0))
    before = exported(adapted)
    for x in uneven(3):
        assert adapted(x).isfinite().all()
        assert not adapted.last.updated
        assert "sure enough" in adapted.last.reason
    assert adapted.state.batches == 3
    assert same(exported(adapted), before)


def test_nothing_is_learned_where_nothing_stays_sure():
    """A perturbation far too large leaves no sure row: no update, and no mean of nothing."""
    adapted = acclimate.adapt(group_net(), SAR(margin=0.3, radius=3.0))
    before, reasons = exported(adapted), set()
    for x in uneven(6):
        adapted(x)
        if not adapted.last.updated:
            reasons.add(adapted.last.reason)
            assert same(exported(adapted), before)
        before = exported(adapted)
    assert "no answer stayed sure at the perturbed weights" in reasons


def test_answers_are_those_of_the_unperturbed_weights():
    x = uneven(1)[0]
    adapted = acclimate.adapt(group_net(), SAR(radius=5.0, margin=1.0))
    assert torch.allclose(adapted(x), group_net()(x), rtol=0, atol=1e-12)


def test_counted_passes():
    """Independent rows: one forward, and two of the sure rows with a graph; from half of the rows on, the first has."""
    net = Counted(group_net())
    adapted = acclimate.adapt(net, SAR(margin=0.6, learning_rate=1e-3))
    share, ways = 0.0, set()
    for x in uneven(10):
        net.rows.clear()
        adapted(x)
        sure = int(adapted.last.selected)
        expected = [(12, True)] if share >= 0.5 else [(12, False), (sure, True)]
        assert net.rows == ([*expected, (sure, True)] if sure else [(12, share >= 0.5)])
        assert adapted.last.backwards == (2 if sure else 0)
        ways.add(share >= 0.5)
        share = sure / 12 if adapted.last.updated else share
    assert ways == {True, False}
    net = Counted(NETS["batch_norm"]())
    adapted = acclimate.adapt(net, SAR(**SETTINGS))
    net.rows.clear()
    adapted(x)
    assert net.rows == [(12, True), (12, True)]


def test_small_batches_step_at_a_smaller_rate():
    """`rows / full_batch` of the rate, single rows at twice that, whole batches at the rate itself."""
    x = uneven(1)[0]
    scaled = acclimate.adapt(group_net(), SAR(full_batch=24, **SETTINGS))
    half = acclimate.adapt(group_net(), SAR(**{**SETTINGS, "learning_rate": 1e-2}))
    assert torch.equal(scaled(x), half(x))
    for ours, theirs in zip(scaled.state.weights.values(), half.state.weights.values(), strict=True):
        assert torch.equal(ours, theirs)
    group = scaled.state.table.optimizers["optimizer"].optimizer.param_groups[0]
    for rows, share in ((1, 2 / 24), (6, 6 / 24), (12, 12 / 24)):
        scaled(x[:rows])
        if scaled.last.updated:
            assert group["lr"] == pytest.approx(2e-2 * share)
    whole = acclimate.adapt(group_net(), SAR(full_batch=8, **SETTINGS))
    whole(x)
    assert whole.state.table.optimizers["optimizer"].optimizer.param_groups[0]["lr"] == pytest.approx(2e-2)
    scaled.reset()
    assert group["lr"] == pytest.approx(2e-2)


def test_norms_of_the_last_stage_stay():
    net = ResidualNet(4, widths=(4, 4, 8), blocks=1, norm="batch", seed=0)
    adapted = acclimate.adapt(net, SAR())
    names = set(adapted.state.weights)
    norms = {n for n, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    left = {n for n in norms if f"{n}.weight" not in names}
    assert left
    assert len(left) < len(norms)


def test_published_presets():
    assert [SAR.preset(name).learning_rate for name in ("imagenet", "vit", "cifar")] == [2.5e-4, 1e-3, 1e-3]
    assert [SAR.preset(name).full_batch for name in ("imagenet", "vit")] == [32, 64]
    assert (SAR().margin, SAR().radius, SAR().optimizer) == (0.4, 0.05, "sgd")


@pytest.mark.parametrize("options", [{"radius": 0}, {"recovery": 2}, {"margin": -0.1}, {"full_batch": -3}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        SAR(**options)
