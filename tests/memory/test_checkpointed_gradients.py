"""Checkpointed blocks give PyTorch's gradients, change state once, and refuse what cannot run twice."""

# ruff: noqa: NPY002 (blocks draw from NumPy's global generator, which is what is tested)

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.anatomy import blocks
from acclimate.memory import Checkpointed
from acclimate.models.transformer import VisionTransformer

from .keeping import gradients, kept, seeded
from .test_exact_gradients import compare, images, learning

FLAT = (3, 6, 8, 8)


class Basic(nn.Module):
    """A residual block; dropout, if any, drops in eval mode too."""

    def __init__(self, width: int = 6, norm: Callable[[int], nn.Module] = nn.BatchNorm2d, drop: float = 0.0) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = norm(width), norm(width)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(F.relu(self.norm1(self.conv1(x))), self.drop, training=True)
        return F.relu(x + self.norm2(self.conv2(y)), inplace=True)


class Deep(nn.Module):
    """A stem, blocks one after another, a head."""

    def __init__(self, *parts: nn.Module, width: int = 6) -> None:
        super().__init__()
        self.stem, self.parts, self.head = nn.Conv2d(6, width, 3, padding=1), nn.Sequential(*parts), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.parts(self.stem(x)).mean((2, 3)))


class Passing(nn.Module):
    """A block with several inputs, one by name and one in a tuple, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor, pair: tuple[Tensor, int], *, scale: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.tanh(self.inner(x)) * scale
        return x + self.outer(y) * pair[1], (pair[0] * y).sin()


class Passed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Passing(), Passing()

    def forward(self, x: Tensor) -> Tensor:
        y, other = self.a(x, (x, 2), scale=x.exp())
        y, other = self.b(y, (other, 3), scale=other)
        y, other = self.b(y, (other, 3), scale=other.cos())
        return y + other


def attention() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "batch_norm": (lambda: Deep(Basic(), Basic(), Basic()), FLAT),
    "stored_statistics": (lambda: Deep(Basic(), Basic()).eval(), FLAT),
    "group_norm": (lambda: Deep(*(Basic(norm=lambda width: nn.GroupNorm(2, width)) for _ in range(2))), FLAT),
    "dropout": (lambda: Deep(Basic(drop=0.4), Basic(drop=0.2)), FLAT),
    "shared": (lambda: (lambda block: Deep(block, block, Basic()))(Basic()), FLAT),
    "transformer": (lambda: VisionTransformer(4, 8, patch=4, width=8, depth=3, heads=2), (3, 3, 8, 8)),
    "torch_transformer": (lambda: nn.TransformerEncoder(attention(), 2, enable_nested_tensor=False), (3, 5, 8)),
    "several_inputs": (Passed, (5, 6)),
    "sequential": (
        lambda: nn.Sequential(
            nn.Conv2d(6, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 6, 3),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ),
        FLAT,
    ),
}


@pytest.mark.parametrize("policy", ["checkpointed", "checkpointed:exact"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_pytorch(name: str, policy: str) -> None:
    make, shape = NETS[name]
    for which in ("all", "norms", "none"):
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            model = learning(seeded(make).to(dtype), which)
            x = images(*shape).to(dtype)
            compare(gradients(model, x, policy), gradients(model, x, None), tolerance)
            if len(shape) == 4:
                x = x.contiguous(memory_format=torch.channels_last)
                compare(gradients(model, x, policy), gradients(model, x, None), tolerance)


@pytest.mark.parametrize("name", ["batch_norm", "transformer"])
def test_under_autocast(name: str) -> None:
    make, shape = NETS[name]
    model, x = learning(seeded(make), "all"), images(*shape)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(model, x, None)
        compare(gradients(model, x, "checkpointed"), expected)
    x = x.clone().requires_grad_()
    with kept(model, "checkpointed", x):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (model(x).float() * torch.linspace(-1, 2, 4 * len(x)).view(-1, 4)).sum()
        (found,) = torch.autograd.grad(loss, x)  # backward outside of it, as PyTorch advises
    compare({"input": found}, {"input": expected["input"]})


def test_statistics_move_once() -> None:
    """Train mode: by hand, one step of momentum 0.1 towards the moments of the batch (unbiased variance)."""
    model = seeded(lambda: Deep(Basic(), Basic())).double().train()
    x = images(*FLAT).double()
    into: list[Tensor] = []
    norm = model.parts[0].norm1
    norm.register_forward_pre_hook(lambda module, inputs: into.append(inputs[0].detach()))
    gradients(model, x, "checkpointed")
    assert len(into) == 2 and torch.equal(*into), "run twice, on the same"
    torch.testing.assert_close(norm.running_mean, 0.1 * into[0].mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * into[0].var((0, 2, 3), correction=1))
    assert all(layer.num_batches_tracked == 1 for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


@pytest.mark.parametrize("in_place", [True, False])
def test_buffers_of_the_model_move_once(in_place: bool) -> None:
    """A block that counts its forwards and scales its answer by the count: 1 both times, 2 for the next forward."""

    class Counting(Basic):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            if in_place:
                self.count.add_(1)
            else:
                self.count = self.count + 1
            return super().forward(x * (1 + self.count))

    def run(policy: str | None) -> tuple[dict[str, Tensor], nn.Module]:
        model = seeded(lambda: Deep(Counting(), Counting())).double()
        return gradients(model, images(*FLAT).double(), policy, lambda x: model(x) * model(x)), model

    (expected, plain), (found, model) = run(None), run("checkpointed")
    compare(found, expected, 1e-12)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], buffer, rtol=0, atol=0)
    assert model.parts[0].count == 2


def test_random_numbers_go_on_as_without() -> None:
    model, x = seeded(NETS["dropout"][0]), images(*FLAT).requires_grad_()
    after: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        for policy in ("stock", "checkpointed"):
            torch.manual_seed(3)
            with kept(model, policy, x):
                torch.autograd.grad(model(x).square().sum(), x)
            after.append(torch.rand(3))
    assert torch.equal(*after)


DRAWS: dict[str, Callable[[], float]] = {
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),
    "numpy_normal": lambda: float(np.random.randn()),
}


class Drawing(Basic):
    """A block whose scale is drawn from a generator that is not torch's, besides dropout's, which is."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__(drop=0.3)
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * (1 + self.draw())) * self.draw()


@pytest.fixture
def global_states() -> Iterator[None]:
    before = random.getstate(), np.random.get_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])


def restart() -> None:
    random.seed(7)
    np.random.seed(7)


@pytest.mark.usefixtures("global_states")
@pytest.mark.parametrize("policy", ["checkpointed", "checkpointed:exact"])
@pytest.mark.parametrize("draw", DRAWS)
def test_blocks_that_draw_from_other_global_generators(draw: str, policy: str) -> None:
    """Gradients are PyTorch's, and what is drawn afterwards is what is drawn without; `randn` keeps one in store."""
    model, x = seeded(lambda: Deep(*(Drawing(DRAWS[draw]) for _ in range(3)))).double(), images(*FLAT).double()
    found: list[dict[str, Tensor]] = []
    after: list[list[float]] = []
    for how in (None, policy):
        restart()
        found.append(gradients(model, x, how))
        after.append([random.random(), float(np.random.randn()), float(np.random.rand())])
    compare(found[1], found[0], 1e-12)
    assert after[0] == after[1]


@pytest.mark.usefixtures("global_states")
def test_numbers_drawn_between_forward_and_backward_stay_drawn() -> None:
    """As without the policy: a draw between the two is not drawn again after them."""
    model = seeded(lambda: Deep(*(Drawing(DRAWS["python"]) for _ in range(2)))).double()
    x = images(*FLAT).double().requires_grad_()
    found: list[tuple[Tensor, float, float]] = []
    for policy in ("stock", "checkpointed"):
        restart()
        with torch.random.fork_rng(devices=[]), kept(model, policy, x):
            torch.manual_seed(3)
            answer = model(x).square().sum()
            between = random.random()
            found.append((torch.autograd.grad(answer, x)[0], between, random.random()))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-12, atol=1e-12)
    assert found[0][1:] == found[1][1:] and found[0][1] != found[0][2]


def test_each_backward_through_one_graph() -> None:
    """Twice through the same graph, then parts of it: the same gradients, one run of the block more for each."""
    model, x = seeded(lambda: Deep(Basic(), Basic())).double(), images(*FLAT).double().requires_grad_()
    runs: list[int] = []
    model.parts[0].conv1.register_forward_hook(lambda *_: runs.append(1))
    weight = model.parts[0].conv1.weight

    def step(policy: str) -> list[Tensor]:
        with kept(model, policy, x) as books:
            answer = model(x)
            found = [torch.autograd.grad(answer.sum(), x, retain_graph=True)[0]]
            found += torch.autograd.grad(answer.square().sum(), [x, weight], retain_graph=True)
            found += torch.autograd.grad(answer.sum(), [model.head.weight])
            del answer
            assert books.held.now == books.dense.now == 0
        return found

    expected = step("stock")
    runs.clear()
    for ours, own in zip(step("checkpointed"), expected, strict=True):
        torch.testing.assert_close(ours, own)
    assert len(runs) == 3, "forward, and the two backwards that reach the block"


def test_a_second_run_ends_with_what_is_saved_last() -> None:
    """A transformer block saves the input of its last linear layer, whose product is not computed again."""
    model = seeded(lambda: VisionTransformer(4, 8, patch=4, width=8, depth=2, heads=2))
    begun: list[int] = []
    ended: list[int] = []
    last = next(iter(blocks(model).values())).mlp[2]
    last.register_forward_pre_hook(lambda *_: begun.append(1))
    last.register_forward_hook(lambda *_: ended.append(1))
    gradients(model, images(3, 3, 8, 8), "checkpointed")
    assert len(begun) == 2 and len(ended) == 1


def test_nothing_is_kept_of_what_does_not_learn() -> None:
    model, x = learning(seeded(lambda: Deep(Basic(), Basic())), "none"), images(*FLAT)
    with kept(model, "checkpointed", x) as books:
        model(x)
        with torch.no_grad():
            model(x.requires_grad_())
    assert books.held.peak == books.dense.peak == 0 and not books.lines


class Broken(Basic):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.runs = how, 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        if self.how == "input":
            x = x.mul_(2)
        if self.how == "raises" and self.runs == 2:
            raise KeyError("second run")
        return super().forward(x)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("input", RuntimeError, "parts.0 changes its input in place"),
        ("raises", KeyError, "second run"),
        ("weights", RuntimeError, "weight or buffer of parts.0 was changed"),
        ("after", RuntimeError, "parts.0 or what follows changes its input in place"),
    ],
)
def test_what_cannot_run_again_is_refused(how: str, error: type[Exception], words: str) -> None:
    model, x = seeded(lambda: Deep(Broken(how), Broken(""))), images(*FLAT)
    with kept(model, "checkpointed", x), pytest.raises(error, match=words):
        fed = model.stem(x)
        answer = model.parts(fed).sum()
        with torch.no_grad():
            if how == "weights":
                model.parts[0].conv1.weight.add_(1)
            if how == "after":
                fed.add_(1)
        torch.autograd.grad(answer, model.parts[0].conv1.weight)
    assert not any("forward" in vars(module) for module in model.modules())
    y = torch.randn(4, requires_grad=True).sin()
    assert type(y.grad_fn._saved_self) is Tensor, "no hook is left behind"


def test_another_computation_is_noticed() -> None:
    class Fickle(Basic):
        width = 8

        def forward(self, x: Tensor) -> Tensor:
            self.width -= 1
            return super().forward(x[..., : self.width])

    model, x = seeded(lambda: Deep(Fickle(), Fickle())), images(*FLAT)
    with kept(model, "checkpointed", x), pytest.raises(RuntimeError, match=r"parts\.1 computes something else"):
        model(x).sum().backward()


@pytest.mark.parametrize("within", ["checkpointed", Checkpointed()])
def test_it_does_not_stand_within_itself(within: Any) -> None:
    with pytest.raises(ValueError, match="another policy"):
        Checkpointed(within=within)
