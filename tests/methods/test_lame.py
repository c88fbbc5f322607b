"""LAME: the golden vectors of the specification, an oracle by loops, and where it helps and harms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.methods import lame
from acclimate.methods.lame import LAME
from methods.reference import small_net, stream


class Given(nn.Module):
    """Rows `[f, z]`: a head that is fed f, and the logits z."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.head = nn.Linear(width, classes, dtype=torch.float64)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[:, : self.width]) + x[:, self.width :]


def golden() -> Tensor:
    """`f[i][d] = cos(0.4 i + 0.9 d)` and `z[i][c] = 2 sin(1.3 i + 0.7 c)`, four rows."""
    rows = [
        [math.cos(0.4 * i + 0.9 * d) for d in range(3)] + [2 * math.sin(1.3 * i + 0.7 * c) for c in range(5)]
        for i in range(4)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def test_golden_vectors_of_the_neighbours_kernel():
    adapted = acclimate.adapt(Given(3, 5), LAME(kernel="knn", neighbours=2))
    y = adapted(golden()).exp()
    assert y[0].tolist() == pytest.approx([0.150282, 0.214631, 0.324154, 0.230227, 0.080706], abs=1e-6)
    assert y[3].tolist() == pytest.approx([0.222257, 0.047463, 0.050031, 0.137094, 0.543155], abs=1e-6)
    assert adapted.last.values["iterations"] == 26


def test_golden_vectors_of_the_gaussian_kernel():
    adapted = acclimate.adapt(Given(3, 5), LAME(kernel="rbf", neighbours=3))
    y = adapted(golden()).exp()
    assert y[0].tolist() == pytest.approx([0.097246, 0.179636, 0.386119, 0.254028, 0.082971], abs=1e-6)
    assert adapted.last.values["iterations"] == 29


@pytest.mark.parametrize("early", [True, False])
def test_stopping_early_and_freezing_are_the_same(monkeypatch, early):
    """Where the flag is not read, the answer stays that of the iteration that settled."""
    monkeypatch.setattr(lame, "_reading_is_free", lambda flag: early)
    adapted = acclimate.adapt(Given(3, 5), LAME(kernel="knn", neighbours=2, tolerance=1e-3))
    found = adapted(golden()).exp()
    z, options = golden()[:, 3:], {"kernel": "knn", "neighbours": 2, "strength": 1.0, "symmetric": False}
    expected, count = oracle(golden()[:, :3], z, **options, iterations=100, tolerance=1e-3)
    assert adapted.last.values["iterations"] == count < 20
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def oracle(
    f: Tensor,
    z: Tensor,
    *,
    kernel: str,
    neighbours: int,
    strength: float,
    symmetric: bool,
    iterations: int,
    tolerance: float = 1e-8,
) -> tuple[Tensor, int]:
    """Row by row, stopping where the rule says."""
    f = f / f.norm(dim=1, keepdim=True)
    count = len(f)
    distance = [[float((a - b).norm()) for b in f] for a in f]
    w = torch.zeros(count, count, dtype=f.dtype)
    reach = sum(sorted(row)[min(neighbours, count) - 1] for row in distance) / count
    for i in range(count):
        nearest = sorted((j for j in range(count) if j != i), key=lambda j: distance[i][j])[:neighbours]
        for j in range(count):
            if kernel == "knn":
                w[i, j] = 1.0 if j in nearest else 0.0
            elif kernel == "rbf":
                w[i, j] = math.exp(-(distance[i][j] ** 2) / (2 * reach**2))
            else:
                w[i, j] = f[i] @ f[j]
    if symmetric:
        w = (w + w.T) / 2
    u = -torch.log(z.softmax(1) + 1e-10)
    y, old = (-u).softmax(1), math.nan
    for i in range(iterations):
        pull = strength * w @ y
        y = (pull - u).softmax(1)
        energy = float((u * y - pull * y + y * torch.log(y.clamp_min(1e-20))).sum())
        if i > 1 and abs(energy - old) <= tolerance * abs(old):
            return y, i + 1
        old = energy
    return y, iterations


@pytest.mark.parametrize(
    "switch",
    [
        {},
        {"neighbours": 2},
        {"kernel": "knn", "neighbours": 1},
        {"kernel": "knn"},
        {"kernel": "knn", "neighbours": 30},
        {"kernel": "knn", "symmetric": True, "strength": 0.5},
        {"kernel": "linear", "strength": 0.2},
        {"kernel": "linear", "symmetric": True},
        {"iterations": 2},
        {"iterations": 1},
    ],
    ids=str,
)
def test_equals_the_oracle(switch):
    options = {"kernel": "rbf", "neighbours": 5, "strength": 1.0, "symmetric": False, "iterations": 100} | switch
    net = small_net()
    adapted = acclimate.adapt(net, LAME(**options))
    for x in stream(4):
        y, count = oracle(net[:-1](x).detach(), net(x).detach(), **options)
        assert torch.allclose(adapted(x).softmax(1), y, rtol=0, atol=1e-9)
        assert adapted.last.values["iterations"] == count


def clusters(labels: Tensor, seed: int) -> Tensor:
    """Features around class means, and logits that are right about as often as a shifted model's."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(10, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f = means[labels] + 0.4 * torch.randn(len(labels), 16, generator=generator, dtype=torch.float64)
    z = 2.0 * torch.randn(len(labels), 10, generator=generator, dtype=torch.float64)
    z[torch.arange(len(labels)), labels] += 2.5
    return torch.cat([f, z], 1)


@pytest.mark.parametrize("kernel", ["knn", "rbf"])
def test_helps_on_correlated_labels(kernel):
    """Batches of two classes: at least a third of the source's errors are gone."""
    adapted, source = acclimate.adapt(Given(16, 10), LAME(kernel=kernel)), Given(16, 10)
    before = after = 0
    for number in range(20):
        labels = torch.arange(64) % 2 + 2 * (number % 5)
        x = clusters(labels, number)
        before += int((source(x).argmax(1) != labels).sum())
        after += int((adapted(x).argmax(1) != labels).sum())
    assert 300 < before < 900
    assert after < 2 / 3 * before


def test_harms_on_independent_labels():
    """Batches of ten classes, features that do not tell them apart: agreement with strangers costs accuracy."""
    adapted, source = acclimate.adapt(Given(16, 10), LAME()), Given(16, 10)
    before = after = 0
    for number in range(20):
        labels = torch.randint(10, (64,), generator=torch.Generator().manual_seed(number))
        x = clusters(labels, number)
        x[:, :16] = torch.rand(64, 16, generator=torch.Generator().manual_seed(99 + number), dtype=torch.float64)
        before += int((source(x).argmax(1) != labels).sum())
        after += int((adapted(x).argmax(1) != labels).sum())
    assert after > 1.1 * before


def test_a_batch_of_one_has_nobody_to_agree_with():
    net, x = small_net(), stream(1)[0][:1]
    adapted = acclimate.adapt(net, "lame:knn")
    answer = adapted(x)
    assert torch.allclose(answer.softmax(1), net(x).softmax(1), rtol=0, atol=1e-8)
    assert adapted.last.values["iterations"] == 3, "the energy is looked at from the third iteration on"


def test_identical_features_do_not_divide_by_zero():
    """The mean distance is then zero, and everybody agrees with everybody."""
    x = golden()
    x[:, :3] = 1.0
    adapted = acclimate.adapt(Given(3, 5), "lame")
    answer = adapted(x)
    assert adapted.last.reason is None
    spread = (answer - answer.mean(0)) - (x[:, 3:].log_softmax(1) - x[:, 3:].log_softmax(1).mean(0))
    assert float((spread - spread.mean(1, keepdim=True)).abs().max()) < 1e-6, "the pull is the same on every row"


def test_keeps_nothing():
    adapted = acclimate.adapt(small_net(), "lame")
    x = stream(1)[0]
    first = adapted(x)
    adapted(stream(2)[1])
    with adapted.frozen():
        assert torch.equal(adapted(x), first)
    assert adapted.memory().state == {}


def test_other_normalisations_have_their_own_features():
    """With an observing pass before the answer, the features are those of the answer."""
    x = stream(1)[0]
    ema = acclimate.adapt(small_net(), "lame:knn", normalization="ema")
    seen = acclimate.adapt(small_net(), "bn:ema")
    z = seen(x)
    f: list[Tensor] = []
    seen.module[-1].register_forward_pre_hook(lambda module, inputs: f.append(inputs[0].detach()))
    with seen.frozen():
        seen(x)
    expected, _ = oracle(f[0], z, kernel="knn", neighbours=5, strength=1.0, symmetric=False, iterations=100)
    assert torch.allclose(ema(x).softmax(1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["lame", "t3a", "shot", "adacontrast"])
def test_without_a_linear_head(method):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"linear .*[Cc]hoose|linear .*choose"):
        acclimate.adapt(net, method)


class Patches(nn.Module):
    """One linear layer over pixels, with the mean taken afterwards."""

    def __init__(self, fold: bool) -> None:
        super().__init__()
        self.fold = fold
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        if self.fold:
            return self.head(rows.flatten(0, 1)).view(*rows.shape[:2], 4).mean(1)
        return self.head(rows).mean(1)


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("method", ["lame", "t3a", "adacontrast"])
def test_a_head_that_is_fed_something_else(method, fold):
    adapted = acclimate.adapt(Patches(fold), method)
    with pytest.raises(ValueError, match="no classifier of whole inputs"):
        adapted(torch.rand(8, 3, 4, 4))


@pytest.mark.parametrize(
    "wrong", [{"kernel": "cosine"}, {"neighbours": 1}, {"strength": 0.0}, {"iterations": 0}, {"tolerance": -1.0}]
)
def test_ranges(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LAME(**wrong)
