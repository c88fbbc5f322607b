"""SHOT, online, against the golden number and a float64 oracle."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.methods.shot import SHOT
from methods.reference import by_batch, entropy, small_net, stream


def test_golden_number():
    """`z[i][c] = 2 sin(1.3 i + 0.7 c)`: the bracket is -0.400955."""
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)).double()
    with torch.no_grad():
        for layer in net:
            layer.weight.copy_(torch.eye(5))
            layer.bias.zero_()
    z = [[2 * math.sin(1.3 * i + 0.7 * c) for c in range(5)] for i in range(4)]
    adapted = acclimate.adapt(net, SHOT(label_weight=0.0))
    adapted(torch.tensor(z, dtype=torch.float64))
    assert adapted.last.values["information"] == pytest.approx(-0.400955, abs=1e-6)
    assert adapted.last.loss == pytest.approx(-0.400955, abs=1e-6)


def objective(z: Tensor, o: SHOT) -> Tensor:
    p = z.softmax(1)
    q = p.mean(0)
    loss = o.entropy_weight * (entropy(z).mean() + sum(share * torch.log(share + 1e-5) for share in q))
    sure = [row for row in z if float(row.detach().softmax(0).max()) > o.threshold]
    if sure:
        terms = [-row.log_softmax(0)[int(row.argmax())] for row in sure]
        loss = loss + o.label_weight * sum(terms) / len(terms)
    return loss


SETTINGS = {
    "default": (SHOT(learning_rate=1e-2), lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True)),
    "weights": (
        SHOT(learning_rate=1e-2, entropy_weight=0.5, label_weight=2.0, threshold=0.6),
        lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    ),
    "nobody is sure": (
        SHOT(learning_rate=1e-2, threshold=0.99999),
        lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    ),
    "office-home": (SHOT.preset("office-home"), lambda p: torch.optim.Adam(p, lr=1e-3)),
    "im": (SHOT.preset("im"), lambda p: torch.optim.SGD(p, lr=1e-3)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_oracle(name):
    method, factory = SETTINGS[name]
    twin = by_batch(small_net())
    norms = [p for m in twin.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    opt = factory(norms if name == "im" else list(twin[:-1].parameters()))
    adapted = acclimate.adapt(small_net(), method)
    counts = set()
    for x in stream(6):
        z = twin(x)
        assert torch.allclose(adapted(x), z, rtol=0, atol=1e-9)
        loss = objective(z, method)
        opt.zero_grad()
        loss.backward()
        opt.step()
        assert adapted.last.loss == pytest.approx(loss.item(), abs=1e-9)
        assert adapted.last.selected == int((z.softmax(1).amax(1) > method.threshold).sum())
        counts.add(adapted.last.selected)
    assert (counts == {0}) if name == "nobody is sure" else len(counts) > 1
    expected = dict(twin.named_parameters())
    for key, weight in adapted.state.weights.items():
        assert torch.allclose(weight, expected[key], rtol=0, atol=1e-9), key


def test_the_classifier_stays():
    adapted = acclimate.adapt(small_net(), "shot")
    names = {name for name, _ in small_net().named_parameters()}
    assert names - set(adapted.state.weights) == {"8.weight", "8.bias"}


def test_momentum_is_of_sgd_only():
    assert SHOT(momentum=0.0).cost().copies["optimizer"] == 0
    assert SHOT(momentum=0.0, optimizer="adam").cost().copies["optimizer"] == 2


def test_dense_answers_count_every_place():
    """Logits `[N, C, L]`: the same loss as of the N L rows."""

    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 5, 1).double(), nn.Linear(5, 4).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).flatten(2).transpose(1, 2)).transpose(1, 2)

    torch.manual_seed(0)
    net, x = Dense(), stream(1)[0]
    adapted = acclimate.adapt(net, SHOT(threshold=0.3))
    z = adapted(x)
    assert adapted.last.loss == pytest.approx(float(objective(z.transpose(1, 2).flatten(0, 1), SHOT(threshold=0.3))))


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 0.0}, {"threshold": 1.1}, {"momentum": 2.0}, {"label_weight": -1.0}, {"adapts": "all"}]
)
def test_ranges(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SHOT(**wrong)
