"""NOTE against a float64 oracle that goes sample by sample, and what can be derived about it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.method import methods
from acclimate.methods.note import NOTE
from acclimate.normalization.instance_aware import InstanceAwareStatistics
from methods.reference import by_batch, small_net, stream
from parts.memories import Balanced


class Aware(nn.Module):
    """Instance-aware batch norm after the paper's formulas; train mode takes the batch for reference."""

    def __init__(self, bn, k, momentum):
        super().__init__()
        self.weight, self.bias, self.eps, self.k, self.momentum = bn.weight, bn.bias, bn.eps, k, momentum
        self.mean, self.var = bn.running_mean.clone(), bn.running_var.clone()

    def forward(self, x):
        shape, size = (1, -1, 1, 1), x.shape[2] * x.shape[3]
        mu, s2 = self.mean.view(shape), self.var.view(shape)
        if self.training:
            mu = x.mean((0, 2, 3), keepdim=True)
            s2 = ((x - mu) ** 2).sum((0, 2, 3), keepdim=True) / (len(x) * size - 1)
            self.mean = (1 - self.momentum) * self.mean + self.momentum * mu.detach().flatten()
            self.var = (1 - self.momentum) * self.var + self.momentum * s2.detach().flatten()
        m = x.mean((2, 3), keepdim=True)
        v = ((x - m) ** 2).sum((2, 3), keepdim=True) / (size - 1)
        a, b = self.k * ((s2 + self.eps) / size).sqrt(), self.k * (s2 + self.eps) * (2 / (size - 1)) ** 0.5
        shrink = lambda d, limit: d.sign() * (d.abs() - limit).clamp_min(0)  # noqa: E731
        mean, var = mu + shrink(m - mu, a), (s2 + shrink(v - s2, b)).clamp_min(0)
        return (x - mean) / (var + self.eps).sqrt() * self.weight.view(shape) + self.bias.view(shape)


def oracle(net, batches, generator, *, k=1.0, momentum=0.01, rate=1e-2, capacity=6, every=8, fifo=False, aware=True):
    net = copy.deepcopy(net) if aware else by_batch(net)
    weights = [p for m in net if isinstance(m, nn.BatchNorm2d) for p in (m.weight, m.bias)]
    for number, module in enumerate(net):
        if isinstance(module, nn.BatchNorm2d) and aware:
            net[number] = Aware(module, k, momentum)
    adam, memory, newest, came, answers = (
        torch.optim.Adam(weights, lr=rate),
        Balanced(capacity, 4, generator),
        [],
        0,
        [],
    )
    for batch in batches:
        answers.append(net.eval()(batch).detach())
        for x, z in zip(batch, answers[-1], strict=True):
            memory.add(x, int(z.argmax()), None)
            newest, came = [*newest, x][-capacity:], came + 1
            if came % every == 0:
                p = net.train()(torch.stack(newest if fifo else memory.items())).softmax(1)
                adam.zero_grad()
                (-p * (p + 1e-6).log()).mean().backward()
                adam.step()
    return answers, net


@pytest.mark.parametrize("sizes", [(12, 12, 12, 12), (8, 8, 8), (1, 7, 20, 3)], ids=str)
@pytest.mark.parametrize("k", [1.0, 4.0])
def test_equals_the_oracle(sizes, k):
    """Updates fall between batches, inside them, and several into one."""
    batches = torch.cat(stream(4))[: sum(sizes)].split(sizes)
    norm = InstanceAwareStatistics(k=k)
    method = NOTE(normalization=norm, learning_rate=1e-2, capacity=6, update_every=8)
    adapted = acclimate.adapt(small_net(9), method)
    generator = torch.Generator().set_state(adapted.state.generator("bank").get_state())
    answers, net = oracle(small_net(9), batches, generator, k=k)
    for x, expected in zip(batches, answers, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
    expected = dict(net.named_parameters())
    for name, weight in adapted.state.weights.items():
        assert torch.allclose(weight, expected[name], rtol=0, atol=1e-9), name
        assert not torch.allclose(weight, dict(small_net(9).named_parameters())[name], atol=1e-3)
    for layer, reference in zip(adapted.state.layers, (m for m in net if isinstance(m, Aware)), strict=True):
        assert torch.allclose(layer.running_mean, reference.mean, atol=1e-9)
        assert torch.allclose(layer.running_var, reference.var, atol=1e-9)


def test_the_iid_preset_equals_its_oracle():
    """The newest samples, batch statistics in answers and updates alike."""
    method = NOTE(sampling="fifo", normalization="batch", learning_rate=1e-2, capacity=6, update_every=8)
    adapted = acclimate.adapt(small_net(), method)
    answers, _ = oracle(small_net(), stream(4), torch.Generator(), fifo=True, aware=False)
    for x, expected in zip(stream(4), answers, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)


def test_published_settings():
    default, iid = methods.build("note"), methods.build("note:iid")
    assert (default.learning_rate, default.capacity, default.update_every) == (1e-4, 64, 64)
    assert (default.normalization.k, default.normalization.momentum) == (4, 0.01)
    assert (iid.learning_rate, iid.sampling, iid.normalization.name) == (1e-3, "fifo", "batch")
    assert methods.build("note:non-iid").config() == default.config()


def test_answers_do_not_depend_on_the_company():
    """Until the first update, and at any time frozen, a row is answered as it is alone."""
    x = stream(1)[0]
    adapted, alone = (acclimate.adapt(small_net(), NOTE(update_every=13)) for _ in range(2))
    assert torch.allclose(adapted(x), torch.cat([alone(row) for row in x.split(1)]), rtol=0, atol=1e-12)
    adapted(x)
    with adapted.frozen():
        together, apart = adapted(x), torch.cat([adapted(row) for row in x.split(1)])
    assert torch.allclose(together, apart, rtol=0, atol=1e-12)


def test_a_stream_cut_to_divide_the_interval_is_the_stream_sample_by_sample():
    x, found = torch.cat(stream(4)), []
    for size in (1, 4, 8):
        adapted = acclimate.adapt(small_net(), NOTE(capacity=6, update_every=8, learning_rate=1e-2))
        found.append(torch.cat([adapted(batch) for batch in x.split(size)]))
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-10)
    assert torch.allclose(found[0], found[2], rtol=0, atol=1e-10)


def test_updates_come_when_their_samples_have():
    adapted = acclimate.adapt(small_net(), NOTE(capacity=6, update_every=20))
    backwards = []
    for x in stream(5):
        adapted(x)
        backwards.append(adapted.last.backwards)
    assert backwards == [0, 1, 0, 1, 1]
    assert adapted.last.values["kept"] == 6


def test_only_normalisation_weights_learn():
    net = small_net()
    adapted = acclimate.adapt(net, NOTE(update_every=8, learning_rate=0.1))
    for x in stream(3):
        adapted(x)
    assert torch.equal(adapted.merged()[8].weight, net[8].weight)
    assert set(adapted.state.weights) == {"1.weight", "1.bias", "4.weight", "4.bias"}


@pytest.mark.parametrize("bad", [{"capacity": 0}, {"update_every": 0}, {"sampling": "random"}, {"learning_rate": 0}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="must"):
        NOTE(**bad)


def test_a_wrong_class_count_is_named():
    adapted = acclimate.adapt(small_net(), NOTE(classes=7))
    with pytest.raises(ValueError, match="classes=4"):
        adapted(stream(1)[0])
