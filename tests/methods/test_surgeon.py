"""SURGEON's loss, its two ways through the branches, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.memory import ExactSavings, SurgeonSavings
from acclimate.methods.surgeon import Surgeon
from methods.reference import by_batch, entropy, small_net, stream


def plain_sgd(weights: Iterable[nn.Parameter], lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(weights, lr=lr)


def view(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    return x * 0.8 + 0.1


def test_the_step_is_that_of_the_formula() -> None:
    """(1 / |Q|) sum exp(E0 - H) H over Q = {H < E0}, plus lambda C mean CE, with gradient through both branches."""
    method = Surgeon(memory="stock", learning_rate=1e-2, optimizer=plain_sgd, margin=0.5, consistency=0.05, views=view)
    adapted, twin, x = acclimate.adapt(small_net(), method), by_batch(small_net()), stream(1)[0]
    z, other = twin(x), twin(view(x))
    classes = z.shape[1]
    doubt, limit = entropy(z), 0.5 * math.log(classes)
    chosen = doubt.detach() < limit
    assert 0 < chosen.sum() < len(x), "both kinds of rows"
    loss = (torch.exp(limit - doubt.detach()) * doubt)[chosen].sum() / chosen.sum()
    loss = loss - 0.05 * classes * (z.softmax(1) * other.log_softmax(1)).sum(1).mean()
    adapted(x)
    assert adapted.last is not None and adapted.last.loss == pytest.approx(loss.item())
    weights = dict(twin.named_parameters())
    gradients = torch.autograd.grad(loss, list(weights.values()))
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        torch.testing.assert_close(adapted.state.weights[name], weight - 1e-2 * gradient, rtol=0, atol=1e-9)


@pytest.mark.parametrize("normalization", ["batch", "ema", "alpha"])
def test_branches_one_after_the_other_have_the_joint_gradient(normalization: str) -> None:
    found: list[dict[str, nn.Parameter]] = []
    for branches in ("joint", "sequential"):
        method = Surgeon(
            memory="stock",
            learning_rate=1e-2,
            optimizer="sgd",
            branches=branches,
            views=view,
            consistency=0.05,
            normalization=normalization,
        )
        adapted = acclimate.adapt(small_net(), method)
        for x in stream(3):
            adapted(x)
        found.append(adapted.state.weights)
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-10)


def test_without_a_sure_row_nothing_is_learned() -> None:
    adapted = acclimate.adapt(small_net(), Surgeon(memory="stock", margin=1e-6, consistency=0.0))
    adapted(stream(1)[0])
    assert adapted.last is not None and adapted.last.reason == "no answer was sure enough"


def test_presets_have_the_published_rates() -> None:
    rates = {name: Surgeon.preset(name).learning_rate for name in Surgeon.presets if name not in ("plain", "faithful")}
    assert rates == {
        "cifar10-c": 2.2e-5,
        "cifar100-c": 1e-5,
        "imagenet-c": 5e-6,
        "cifar10-c-bn": 1e-3,
        "cifar100-c-bn": 3e-4,
        "imagenet-c-bn": 2e-4,
    }


def test_the_flag_brings_the_policy_along_however_it_is_asked_for() -> None:
    faithful = SurgeonSavings(faithful=True)
    for named in ("surgeon", SurgeonSavings(), faithful):
        assert Surgeon(faithful=True, memory=named).memory == faithful
        adapted = acclimate.adapt(small_net(), "surgeon:faithful", memory=named)
        assert adapted.method.memory == faithful
    for other in (SurgeonSavings(probe=3), ExactSavings()):
        assert Surgeon(faithful=True, memory=other).memory == other
        assert acclimate.adapt(small_net(), "surgeon:faithful", memory=other).method.memory == other
    assert Surgeon(memory="surgeon").memory == SurgeonSavings()


def test_the_released_code_learns_weights_alone_and_keeps_its_gradients() -> None:
    """The flag brings the policy along, unless another one is asked for; without it nothing is kept."""
    method = Surgeon(faithful=True, optimizer=plain_sgd, learning_rate=1e-2, views=view)
    assert method.memory == SurgeonSavings(faithful=True) == Surgeon.preset("faithful").memory
    assert Surgeon(faithful=True, memory="stock").memory.name == "stock"
    adapted, own = acclimate.adapt(small_net(), method), acclimate.adapt(small_net(), Surgeon(views=view))
    weights = {name: weight.detach().clone() for name, weight in adapted.state.weights.items()}
    assert list(weights) == [name for name in own.state.weights if not name.endswith("bias")]
    adapted(stream(1)[0])
    for name, weight in weights.items():
        step = (weight - adapted.state.weights[name]) / 1e-2
        torch.testing.assert_close(adapted.state[f"gradient.{name}"], step, rtol=0, atol=1e-9)
        assert f"gradient.{name}" not in own.state
    assert adapted.last is not None and adapted.last.forwards == 2 + 10 / len(stream(1)[0])


def test_shares_are_probed_again_after_an_idle_step() -> None:
    """An idle step forgets the shares it found; the next one does not wait for its turn."""
    memory = SurgeonSavings(refresh=4)
    adapted = acclimate.adapt(small_net(), Surgeon(memory=memory, episodic=True, views=view))
    for x in stream(3):
        adapted(x)
        assert adapted.last is not None and min(adapted.last.detail("share").values()) < 1


def test_a_model_without_a_graph_is_told_so() -> None:
    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.net(x)

    with pytest.raises(ValueError, match="without a graph"):
        acclimate.adapt(Closed(), Surgeon(views=view))(stream(1)[0])
