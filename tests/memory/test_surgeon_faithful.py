"""SURGEON as released: each difference against arithmetic of our own in float64."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acclimate
from acclimate.anatomy import everything
from acclimate.memory import SurgeonSavings, keeper
from acclimate.memory.faithful import Copy, Indexed
from acclimate.memory.operations import Operation
from acclimate.methods.surgeon import Surgeon
from acclimate.methods.tent import Tent

from .keeping import gradients, kept, seeded

EPS = 1e-5


class Small(nn.Module):
    """Two convolutions and batch norms and a linear layer; the source's statistics are far from a batch's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n1 = nn.Conv2d(2, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.b, self.n2 = nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        for norm in (self.n1, self.n2):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.2, 3.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.n2(self.b(self.n1(self.a(x)).relu())).relu().mean((2, 3)))


SIZES = [2 * 36, 6 * 36, 6 * 36, 4 * 16, 4]
"""Numbers in one sample's inputs of a, n1, b, n2 and head."""

WEIGHTS = ["a.weight", "n1.weight", "b.weight", "n2.weight", "head.weight"]


def images(number: int = 0, count: int = 20) -> Tensor:
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def small() -> nn.Module:
    return seeded(Small).double()


def largest(x: Tensor, keep: float) -> Tensor:
    """The tensor with all but the `floor(keep N)` largest magnitudes set to zero."""
    kept = math.floor(keep * x.numel())
    flat, out = x.flatten(), torch.zeros(x.numel(), dtype=x.dtype)
    where = flat.abs().argsort(descending=True)[:kept]
    out[where] = flat[where]
    return out.view(x.shape)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean((0, 2, 3), keepdim=True), (x.var((0, 2, 3), correction=0, keepdim=True) + EPS).sqrt()


def released_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Answers by the batch; has the gradient of `gamma (x_hat r + d) + beta` with r and d constant."""
    mean, sigma = moments(x)
    run, sigma_run = norm.running_mean.view(1, -1, 1, 1), (norm.running_var.view(1, -1, 1, 1) + EPS).sqrt()
    gamma, beta = (weight.view(1, -1, 1, 1) for weight in (norm.weight, norm.bias))
    n = (x - mean) / sigma
    other = gamma * (n * (sigma / sigma_run).detach() + ((mean - run) / sigma_run).detach()) + beta
    return (gamma * n + beta).detach() + other - other.detach()


def probed(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Gradients of the mean entropy, with nothing pruned."""
    z = model.b(released_norm(model.n1, model.a(x)).relu())
    log_p = model.head(released_norm(model.n2, z).relu().mean((2, 3))).log_softmax(1)
    loss = -(log_p.exp() * log_p).sum(1).mean()
    weights = dict(model.named_parameters())
    return dict(zip(WEIGHTS, torch.autograd.grad(loss, [weights[name] for name in WEIGHTS]), strict=True))


def by_hand(found: dict[str, Tensor], sizes: list[int] = SIZES) -> dict[str, float]:
    """`G M` over its maximum."""
    scores = {
        name: math.sqrt(float(gradient.square().sum()) / gradient.numel()) * -math.log(size / sum(SIZES))
        for (name, gradient), size in zip(found.items(), sizes, strict=False)
    }
    return {name: score / max(scores.values()) for name, score in scores.items()}


def test_the_second_probe_has_the_first_step_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SMALL", 0)
    rate = 0.1
    method = Surgeon(
        faithful=True,
        memory=SurgeonSavings(faithful=True, probe=20),
        certain=False,
        consistency=0.0,
        optimizer=torch.optim.SGD,
        learning_rate=rate,
    )
    model = small()
    adapted = acclimate.adapt(model, method)
    assert list(adapted.state.weights) == WEIGHTS, "weights alone"
    adapted(images(0))
    for name, share in by_hand(probed(model, images(0))).items():
        assert adapted.last.detail("share")[name] == pytest.approx(share, rel=1e-5), name
    weights = {name: weight.detach().clone() for name, weight in adapted.state.weights.items()}
    steps = {name: (dict(model.named_parameters())[name].detach() - weight) / rate for name, weight in weights.items()}
    adapted(images(1))
    moved = small()
    moved.load_state_dict(weights, strict=False)
    second = probed(moved, images(1))
    expected = by_hand({name: second[name] + steps[name] for name in WEIGHTS})
    assert max(abs(expected[name] - share) for name, share in by_hand(second).items()) > 1e-3, "they differ"
    for name, share in expected.items():
        assert adapted.last.detail("share")[name] == pytest.approx(share, rel=1e-5), name


def test_sizes_go_by_position() -> None:
    """Where norms alone learn, the first gets the first convolution's, the second the first norm's."""
    for select, sizes in ((None, SIZES), (everything, SIZES)):
        options = {} if select is None else {"select": select}
        policy = SurgeonSavings(faithful=True, gradient_importance=False)
        adapted = acclimate.adapt(small(), Tent(memory=policy, normalization="batch", **options))
        adapted(images())
        found = adapted.last.detail("share")
        names = [name for name in WEIGHTS if name in found]
        assert len(names) == (2 if select is None else 5)
        costs = {name: -math.log(size / sum(SIZES)) for name, size in zip(names, sizes, strict=False)}
        for name, share in found.items():
            expected = costs[name] / max(costs.values()) if name in costs else 0.0  # biases have none
            assert share == pytest.approx(expected, rel=1e-5), name


def norm_gradients(keep: float) -> tuple[dict[str, Tensor], Tensor, nn.Module]:
    norm = small().n1.train()
    x = torch.randn(8, 6, 5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 2 + 0.7
    return gradients(norm, x, SurgeonSavings(faithful=True, share=keep)), x, small().n1


@pytest.fixture
def everything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SMALL", 0)


@pytest.mark.usefixtures("everything_is_packed")
def test_batch_norms_go_back_through_another_function() -> None:
    found, x, norm = norm_gradients(1.0)
    x = x.requires_grad_()
    loss = (released_norm(norm, x).float() * torch.linspace(-1, 2, x.numel()).view(x.shape)).sum()
    expected = torch.autograd.grad(loss, [norm.weight, norm.bias, x])
    for name, gradient in zip(("weight", "bias", "input"), expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-9)
    plain = gradients(small().n1.train(), x.detach(), None)
    assert not torch.allclose(plain["weight"], found["weight"], rtol=0.1)


@pytest.mark.usefixtures("everything_is_packed")
def test_pruned_inputs_of_batch_norms_are_normalised_anew() -> None:
    whole, x, norm = norm_gradients(1.0)
    found, _, _ = norm_gradients(0.25)
    assert torch.equal(found["input"], whole["input"]) and torch.equal(found["bias"], whole["bias"])
    sparse = largest(x, 0.25)
    mean, sigma = moments(sparse)
    g = torch.linspace(-1, 2, x.numel()).view(x.shape).double()
    batch, deviation = moments(x)
    run, sigma_run = norm.running_mean.view(1, -1, 1, 1), (norm.running_var.view(1, -1, 1, 1) + EPS).sqrt()
    n = (sparse - mean) / sigma * deviation / sigma_run + (batch - run) / sigma_run
    torch.testing.assert_close(found["weight"], (g * n).sum((0, 2, 3)), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("everything_is_packed")
def test_gradients_of_other_layers_do_not_depend_on_what_is_pruned() -> None:
    """Weights of convolutions and linear layers have the dense formula on the pruned input; biases are exact."""
    net = seeded(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))).double()
    x = images()
    plain, found = gradients(net, x, None), gradients(net, x, SurgeonSavings(faithful=True, share=0.3))
    for name in ("0.bias", "3.bias", "input"):
        torch.testing.assert_close(found[name], plain[name], rtol=1e-9, atol=1e-9)
    g = torch.linspace(-1, 2, 80).view(20, 4).double()
    hidden = net[2](net[1](net[0](x))).detach()
    torch.testing.assert_close(found["3.weight"], g.T @ largest(hidden, 0.3), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found["0.weight"], plain["0.weight"], rtol=0.01)


@pytest.mark.parametrize("keep", [0.0, 0.1, 1.0])
def test_indices_cost_four_bytes(keep: float) -> None:
    x = torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0))
    packed = Indexed(keep=keep).encode(x)
    assert packed.nbytes == 8 * math.floor(keep * x.numel()) == packed.codec.size(x.shape, x.dtype)
    assert torch.equal(packed.decode(), largest(x, keep))
    whole = Copy().encode(x)
    x_before = x.clone()
    x.zero_()
    assert torch.equal(whole.decode(), x_before) and whole.nbytes == 4 * x.numel()


def deep() -> nn.Module:
    layers: list[nn.Module] = []
    for number in range(4):
        layers += [nn.Conv2d(3 if number == 0 else 16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return seeded(lambda: nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)))


def test_it_holds_more_than_stock() -> None:
    """By hand: 8 bytes for each kept value of a layer's input, whole inputs of norms, whole outputs of ReLUs."""
    x = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    held = {}
    for policy in ("stock", SurgeonSavings(faithful=True, share=0.1), "surgeon:faithful"):
        memory = acclimate.adapt(deep(), Tent(select=everything, memory=policy)).memory(x)
        held[str(policy)] = memory.saved
        assert memory.stock == pytest.approx(held["stock"], rel=0.01)
    stock, fixed, probed = held.values()
    assert fixed > stock and probed > stock
    activation = 16 * 16 * 16 * 16
    pruned = 8 * (activation * 3 // 16 // 10 + 7 * (activation // 10))
    assert fixed == pytest.approx(pruned + 8 * 4 * activation, rel=0.01)


def test_torch_has_its_functions_back() -> None:
    x = torch.randn(4, 6, 5, 5)
    norm = seeded(Small).n1.train()
    with kept(norm, SurgeonSavings(faithful=True, share=0.5), x) as books:
        assert "BatchNorm" in type(norm(x).grad_fn).__name__ and "Native" not in type(norm(x).grad_fn).__name__
    assert books.operations.instead is Operation.compute
    assert "Native" in type(norm(x).grad_fn).__name__


def test_it_leaves_statistics_and_the_answer_as_they_are() -> None:
    x = images().float()
    plain, other = (seeded(Small).n1.train() for _ in range(2))
    z = F.conv2d(x, torch.ones(6, 2, 1, 1))
    expected = plain(z)
    with kept(other, SurgeonSavings(faithful=True, share=0.5), z):
        assert torch.equal(other(z), expected)
    assert torch.equal(plain.running_mean, other.running_mean) and torch.equal(plain.running_var, other.running_var)


def test_its_gradients_are_state(tmp_path: Path) -> None:
    """Runs again, resumes and goes back bit for bit; a restart forgets the last gradient."""

    def fresh() -> acclimate.Adapted:
        return acclimate.adapt(small().float(), "surgeon:faithful")

    x = [images(number).float() for number in range(5)]
    adapted, twin = fresh(), fresh()
    for batch in x[:3]:
        assert torch.equal(adapted(batch), twin(batch))
    assert adapted.state["gradient.a.weight"].abs().sum() > 0
    tag = adapted.snapshot()
    adapted.save(tmp_path / "state")
    resumed = acclimate.load(small().float(), tmp_path / "state")
    assert resumed.method == adapted.method
    expected = [adapted(batch) for batch in x[3:]]
    shares = adapted.last.detail("share")
    for other in (resumed, adapted):
        other.restore(tag) if other is adapted else None
        assert all(torch.equal(other(batch), answer) for batch, answer in zip(x[3:], expected, strict=True))
        assert other.last.detail("share") == shares
    adapted.reset()
    assert not adapted.state["gradient.a.weight"].any()
    assert torch.equal(adapted(x[0]), fresh()(x[0]))


@pytest.mark.parametrize("name", ["tent", "law", "cotta", "palm", "sar"])
def test_any_method_runs_with_it(name: str) -> None:
    adapted = acclimate.adapt(deep(), name, memory="surgeon:faithful")
    for number in range(3):
        x = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(number))
        assert adapted(x).isfinite().all()
