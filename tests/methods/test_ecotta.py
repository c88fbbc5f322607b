"""EcoTTA against an oracle in float64 that runs the parts one by one, and what must hold of the small networks."""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acclimate
from acclimate.adapted import Adapted
from acclimate.methods.ecotta import EcoTTA
from acclimate.parts.meta_network import MetaNetwork, deviation
from methods.reference import by_batch, entropy, stream

CLASSES = 4


class Block(nn.Module):
    def __init__(self, inward: int, outward: int, stride: int = 1) -> None:
        super().__init__()
        self.skip = nn.Conv2d(inward, outward, 1, stride=stride, bias=False)
        self.conv = nn.Conv2d(inward, outward, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outward)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.norm(self.conv(x)))


class Net(nn.Module):
    """A stem, three blocks, the second of which halves the map, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Block(4, 4), Block(4, 6, 2), Block(6, 5)])
        self.head = nn.Linear(5, CLASSES)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


SOURCE = (torch.cat(stream(3, seed=7)), torch.arange(36) % CLASSES)
PARTS = ((0,), (1, 2))


def net() -> nn.Module:
    return Net().double().eval()


def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]


class Oracle:
    """The formulas, part by part, on the small networks' tensors as an adaptation starts with them."""

    def __init__(self, adapted: Adapted) -> None:
        self.net = by_batch(net())
        tensors = [weight.detach().clone().requires_grad_() for weight in adapted.state.weights.values()]
        self.small = [tensors[:5], tensors[5:]]
        self.speed = [torch.zeros_like(tensor) for tensor in tensors]

    def run(self, x: Tensor, *, apart: bool = False) -> tuple[Tensor, Tensor]:
        u, away = self.net.stem(x), torch.zeros(())
        for members, (convolution, scale, shift, branch_scale, branch_shift) in zip(PARTS, self.small, strict=True):
            u = u.detach() if apart else u
            v = u
            for member in members:
                v = self.net.blocks[member](v)
            branch = F.conv2d(u, convolution, stride=u.shape[2] // v.shape[2], padding=1)
            w = norm(v, scale, shift) + norm(branch, branch_scale, branch_shift).clamp_min(0)
            away = away + (w - v.detach()).abs().mean()
            u = w
        return self.net.head(u.mean((2, 3))), away

    def descend(self, loss: Tensor, rate: float, momentum: float) -> None:
        flat = [tensor for tensors in self.small for tensor in tensors]
        found = torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for tensor, speed, gradient in zip(flat, self.speed, found, strict=True):
                speed.mul_(momentum).add_(gradient)
                tensor.sub_(rate * speed)

    def step(self, x: Tensor, method: EcoTTA) -> Tensor:
        rate, momentum, weight = method.learning_rate, method.momentum, method.regularisation
        if method.two_step:
            self.descend(weight * self.run(x, apart=True)[1], rate, momentum)
        z, away = self.run(x)
        doubt = entropy(z)
        loss = doubt[doubt < method.margin * math.log(CLASSES)].mean()
        self.descend(loss if method.two_step else loss + weight * away, rate, momentum)
        return z.detach()


def adapt(**settings) -> Adapted:
    options = {"source": SOURCE, "parts": 2, "warm_up_epochs": 1, "warm_up_batch": 12, **settings}
    return acclimate.adapt(net(), EcoTTA(**options))


@pytest.mark.parametrize("two_step", [True, False])
def test_steps_are_those_of_the_formulas(two_step: bool) -> None:
    adapted = adapt(two_step=two_step, margin=0.75, learning_rate=0.02, regularisation=0.4)
    oracle = Oracle(adapted)
    for x in stream(4):
        found, expected = adapted(x), oracle.step(x, adapted.method)
        assert 0 < adapted.last.values["selected"] < len(x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert (adapted.last.forwards, adapted.last.backwards) == (1 + two_step, 1)
    flat = [tensor for tensors in oracle.small for tensor in tensors]
    torch.testing.assert_close([w.data for w in adapted.state.weights.values()], [t.data for t in flat])


def test_without_a_sure_answer_only_the_deviation_is_lowered() -> None:
    adapted, idle = adapt(margin=0.0), adapt(margin=0.0, regularisation=0.0)
    warmed = [weight.detach().clone() for weight in adapted.state.weights.values()]
    away = []
    for _ in range(4):
        adapted(stream()[0])
        idle(stream()[0])
        away.append(adapted.last.values["deviation"])
    assert away == sorted(away, reverse=True)
    assert away[-1] < away[0]
    assert all(torch.equal(w, s) for w, s in zip(idle.state.weights.values(), warmed, strict=True))


def test_the_warm_up_is_sgd_on_the_labels_with_the_published_rates() -> None:
    adapted = adapt(warm_up_epochs=10, warm_up_batch=36)
    oracle = Oracle(adapt(warm_up_epochs=0, warm_up_batch=36))
    for rate in (0.05, 0.05, 0.05, 0.01, 0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004):
        oracle.descend(F.cross_entropy(oracle.run(SOURCE[0])[0], SOURCE[1]), rate, 0.9)
    flat = [tensor.data for tensors in oracle.small for tensor in tensors]
    torch.testing.assert_close([w.data for w in adapted.state.weights.values()], flat)


def test_the_warm_up_rises_over_the_first_epoch_and_can_fall_as_a_cosine() -> None:
    method = EcoTTA(warm_up_epochs=3, schedule="cosine", warm_up_rate=1.0)
    rates = [method._rate(number / 4, 1 / 4) for number in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_the_warm_up_lowers_the_loss_and_tells(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "acclimate"):
        adapted = adapt(warm_up_epochs=8)
    losses = [float(record.getMessage().rsplit(" ", 1)[1]) for record in caplog.records]
    assert len(losses) == 8
    with torch.no_grad():
        before = F.cross_entropy(by_batch(net())(SOURCE[0]), SOURCE[1])
        with adapted.frozen():
            after = F.cross_entropy(adapted(SOURCE[0]), SOURCE[1])
    assert losses[-1] < 0.9 * losses[0]
    assert after < 0.9 * before


def test_before_the_warm_up_the_grown_network_is_the_source() -> None:
    adapted = adapt(warm_up_epochs=0, warm_up_batch=36)
    with adapted.frozen(), torch.no_grad():
        torch.testing.assert_close(adapted(SOURCE[0]), by_batch(net())(SOURCE[0]), rtol=1e-10, atol=1e-10)
    assert adapted.state.weights.keys() == {
        f"blocks.{block}.conv.meta_network.{tensor}"
        for block in (0, 2)
        for tensor in ("convolution", "scale", "shift", "branch_scale", "branch_shift")
    }


def test_every_tensor_learns_though_the_branch_begins_constant() -> None:
    adapted, begin = adapt(), adapt(warm_up_epochs=0)
    for name, weight in adapted.state.weights.items():
        assert not torch.equal(weight, begin.state.weights[name]), name


def test_the_gradient_of_the_deviation_stays_in_channels_last() -> None:
    """Of signs, over as many values as there are; in another order every layer before it would reorder it."""
    network = MetaNetwork(3, 5, torch.Generator().manual_seed(0))
    u, v = (torch.rand(4, c, 6, 6).contiguous(memory_format=torch.channels_last) for c in (3, 5))
    seen: list[Tensor] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], w: Tensor) -> None:
        seen.append(w)
        w.register_hook(seen.append)

    network.register_forward_hook(watch)
    with deviation([network], apart=True) as total:
        network.begin(network, (u,))
        network.end(network, (u,), v)
        total().backward()
    w, gradient = seen
    assert torch.equal(gradient, (w - v).sign() / v.numel())
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_a_saved_adaptation_needs_no_images_and_resets_to_its_warm_up(tmp_path: Path) -> None:
    adapted, fresh = adapt(), adapt()
    for x in stream(2):
        adapted(x)
    adapted.save(tmp_path / "state")
    loaded = acclimate.load(net(), tmp_path / "state")
    assert loaded.method.source is None
    assert torch.equal(loaded(SOURCE[0]), adapted(SOURCE[0]))
    for each in (loaded, adapted):
        each.cpu()  # a move, though to where it is
        each.reset()
        for name, weight in each.state.weights.items():
            assert torch.equal(weight, fresh.state.weights[name]), name


def test_a_deep_copy_goes_on_by_itself() -> None:
    adapted, twin = adapt(), adapt()
    other = copy.deepcopy(adapted)
    other(stream()[1])
    for x in stream(2):
        assert torch.equal(adapted(x), twin(x))
    assert not any(a is b for a, b in zip(adapted.state.weights.values(), other.state.weights.values(), strict=True))


class Chain(nn.Sequential):
    """A block that runs whatever is added to it."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())


def test_models_and_blocks_that_are_containers_do_not_run_the_small_networks_as_layers() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 4, 3), Chain(4), Chain(4), nn.Flatten(), nn.Linear(144, CLASSES)).double().eval()
    adapted = acclimate.adapt(chain, EcoTTA(source=SOURCE, warm_up_epochs=0, warm_up_batch=36))
    with adapted.frozen(), torch.no_grad():
        torch.testing.assert_close(adapted(SOURCE[0]), by_batch(chain)(SOURCE[0]))
    assert len(adapted.state.weights) == 10


def test_one_value_a_channel_is_let_through() -> None:
    adapted = adapt()
    answer = adapted(torch.rand(1, 3, 1, 1, dtype=torch.float64))
    assert bool(answer.isfinite().all())


class Widening(nn.Module):
    """Joins its input to what it makes of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.norm(x))], 1)


def test_what_is_missing_is_told() -> None:
    with pytest.raises(ValueError, match=r"given none\. Pass EcoTTA\(source=\(images, labels\)\)"):
        adapt(source=None)
    with pytest.raises(ValueError, match="images without labels, expected images and labels"):
        adapt(source=SOURCE[0])
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.BatchNorm1d(9), nn.Linear(9, CLASSES)).double()
    with pytest.raises(ValueError, match="beside residual blocks of convolutions, but Sequential has none"):
        acclimate.adapt(flat, EcoTTA(source=SOURCE))
    dense = nn.Sequential(Widening(3), Widening(5), nn.Flatten(), nn.Linear(7 * 64, CLASSES)).double().eval()
    with pytest.raises(ValueError, match=r"\[12, 3, 8, 8\] into \[12, 5, 8, 8\], which a convolution .* cannot follow"):
        acclimate.adapt(dense, EcoTTA(source=SOURCE, warm_up_batch=12))
    with pytest.raises(ValueError, match="came to a loss of nan"):
        adapt(source=(SOURCE[0] * float("inf"), SOURCE[1]))
    for wrong in ({"parts": 0}, {"schedule": "linear"}, {"momentum": 1.5}, {"warm_up_rate": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EcoTTA(**wrong)
