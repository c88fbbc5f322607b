"""RoTTA against a float64 oracle that goes sample by sample, and what can be derived about it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import acclimate
from acclimate.methods.rotta import RoTTA
from acclimate.normalization.robust import RobustStatistics
from methods.reference import small_net, stream
from parts.memories import Timely, uncertainty


class Robust(nn.Module):
    """Robust batch norm after the paper's formula; train mode updates first and normalises by the result."""

    def __init__(self, bn, momentum):
        super().__init__()
        self.weight, self.bias, self.eps, self.momentum = bn.weight, bn.bias, bn.eps, momentum
        self.mean, self.var = bn.running_mean.clone(), bn.running_var.clone()

    def forward(self, x):
        mean, var = self.mean, self.var
        if self.training:
            mu = x.mean((0, 2, 3))
            s2 = ((x - mu.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
            mean, var = (1 - self.momentum) * mean + self.momentum * mu, (1 - self.momentum) * var + self.momentum * s2
            self.mean, self.var = mean.detach(), var.detach()
        mean, var, weight, bias = (t.view(1, -1, 1, 1) for t in (mean, var, self.weight, self.bias))
        return (x - mean) / (var + self.eps).sqrt() * weight + bias


def robust(net, momentum):
    net = copy.deepcopy(net)
    for number, module in enumerate(net):
        if isinstance(module, nn.BatchNorm2d):
            net[number] = Robust(module, momentum)
    return net


def weights(net):
    return {
        f"{n}.{key}": getattr(m, key) for n, m in enumerate(net) if isinstance(m, Robust) for key in ("weight", "bias")
    }


def view(x, generator=None):
    return x.flip(-1) * 0.9


def oracle(net, batches, *, momentum=0.05, rate=1e-2, nu=0.1, capacity=6, every=8, lambdas=(1.0, 1.0)):
    teacher, student = robust(net, momentum).eval(), robust(net, momentum)
    adam = torch.optim.Adam(weights(student).values(), lr=rate)
    memory, came, answers = Timely(capacity, 4, *lambdas), 0, []
    for batch in batches:
        answers.append(teacher.eval()(batch).detach())
        for x, z in zip(batch, answers[-1], strict=True):
            memory.add(x, int(z.argmax()), uncertainty(z))
            came += 1
            if came % every:
                continue
            kept = torch.stack(memory.items())
            q = teacher.train()(kept).softmax(1).detach()
            r = student.train()(view(kept)).softmax(1).log()
            w = [math.exp(-age / capacity) / (1 + math.exp(-age / capacity)) for age in memory.ages()]
            loss = sum(each * -(a * b).sum() for each, a, b in zip(w, q, r, strict=True)) / len(w)
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                for t, s in zip(weights(teacher).values(), weights(student).values(), strict=True):
                    t.copy_((1 - nu) * t + nu * s)
    return answers, teacher, student


OPTIONS = {"learning_rate": 1e-2, "nu": 0.1, "capacity": 6, "update_every": 8, "views": view}


@pytest.mark.parametrize("sizes", [(12, 12, 12, 12), (8, 8, 8), (1, 7, 20, 3)], ids=str)
@pytest.mark.parametrize("lambdas", [(1.0, 1.0), (0.2, 3.0)], ids=str)
def test_equals_the_oracle(sizes, lambdas):
    """Updates fall between batches, inside them, and several into one."""
    batches = torch.cat(stream(4))[: sum(sizes)].split(sizes)
    norm = RobustStatistics(momentum=0.25)
    method = RoTTA(**OPTIONS, normalization=norm, timeliness=lambdas[0], uncertainty=lambdas[1])
    adapted = acclimate.adapt(small_net(9), method)
    answers, teacher, student = oracle(small_net(9), batches, momentum=0.25, lambdas=lambdas)
    for x, expected in zip(batches, answers, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
    for found, net in ((adapted.state.weights, teacher), (adapted.state.twins["student"], student)):
        for name, expected in weights(net).items():
            assert torch.allclose(found[name], expected, rtol=0, atol=1e-9), name
    for layer, t, s in zip(
        adapted.state.layers, *([m for m in net if isinstance(m, Robust)] for net in (teacher, student)), strict=True
    ):
        assert torch.allclose(layer.get_buffer("running_mean"), t.mean, atol=1e-9)
        assert torch.allclose(layer.get_buffer("running_var"), t.var, atol=1e-9)
        assert torch.allclose(layer.get_buffer("twin_mean"), s.mean, atol=1e-9)
        assert torch.allclose(layer.get_buffer("twin_var"), s.var, atol=1e-9)
        assert not torch.allclose(t.mean, s.mean, atol=1e-3)


def test_a_teacher_with_nu_one_is_the_student_and_with_nu_zero_the_source():
    for nu in (0.0, 1.0):
        adapted = acclimate.adapt(small_net(), RoTTA(**{**OPTIONS, "nu": nu}))
        for x in stream(3):
            adapted(x)
        others = adapted.state.twins["student"].values() if nu else adapted.state.sources()
        assert all(torch.equal(w, o) for w, o in zip(adapted.state.weights.values(), others, strict=True))


def test_published_settings():
    method = RoTTA()
    assert (method.learning_rate, method.nu, method.capacity, method.update_every) == (1e-3, 0.001, 64, 64)
    assert (method.timeliness, method.uncertainty, method.normalization.momentum) == (1.0, 1.0, 0.05)
    views = method.views
    assert (views.strength, views.per_sample, views.blurred, views.noisy) == ("hard", False, True, True)


def test_merged_is_the_teacher():
    adapted = acclimate.adapt(small_net(), RoTTA(**OPTIONS))
    for x in stream(3):
        adapted(x)
    with adapted.frozen(), torch.no_grad():
        assert torch.allclose(adapted.merged()(x), adapted(x), atol=1e-12)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 6), nn.LayerNorm([6, 8, 8])], ids=["group", "layer"])
def test_other_norms_learn_as_well(norm):
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    adapted = acclimate.adapt(net.double(), RoTTA(**OPTIONS))
    before = [weight.clone() for weight in adapted.state.weights.values()]
    adapted(stream(1)[0])
    assert adapted.last.updated and adapted.last.backwards == 1
    assert all(not torch.equal(w, b) for w, b in zip(adapted.state.weights.values(), before, strict=True))


def test_views_are_refused_at_the_first_batch():
    """Not when the first update comes: of what is outside [0, 1], and of what is no image."""
    adapted = acclimate.adapt(small_net(), "rotta")
    with pytest.raises(ValueError, match=r"RoTTA are made of images in \[0, 1\], found values from -2"):
        adapted(stream(1)[0] * 4 - 2)
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    with pytest.raises(ValueError, match="views of RoTTA are made of images"):
        acclimate.adapt(net, "rotta")(torch.rand(8, 5))


@pytest.mark.parametrize(
    "bad",
    [{"capacity": 0}, {"update_every": 0}, {"nu": 1.5}, {"timeliness": -1}, {"uncertainty": -1}, {"learning_rate": 0}],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must"):
        RoTTA(**bad)
