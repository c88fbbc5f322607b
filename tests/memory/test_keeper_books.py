"""T5, T11: the books say what is really held, at every moment, and nothing stays alive after a step."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import acclimate
from acclimate.core.memory import policies
from acclimate.memory import keeper
from acclimate.memory.keeper import Keeper

from .keeping import Ours, kept, seeded


@pytest.fixture(autouse=True)
def everything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SMALL", 0)


def net() -> nn.Sequential:
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(54, 4),
        )
    )


def image(seed: int = 0, count: int = 6) -> Tensor:
    return torch.randn(count, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("policy", ["stock", "exact", "quantized:4-bit", "surgeon"])
def test_dense_is_what_hooks_that_hold_everything_count(policy: str) -> None:
    model, x = net(), image()
    with Ours(model) as ours:
        loss = model(x).square().sum()
    del loss
    policy = policies.build(policy)
    choose = policy.choose if hasattr(policy, "choose") else None
    with kept(model, "stock", x) as books, books.choosing(choose or (lambda saved: keeper.Exact())):
        loss = model(x).square().sum()
        assert books.dense.now == books.dense.peak == ours.bytes
        lines = sum(line.held for line in books.lines if line.codec != "Exact")
        itself = books.held.now - lines
        assert 0 <= itself <= ours.bytes and (policy.name != "stock" or books.held.now == ours.bytes)
        assert books.held.now <= books.bound.now
        loss.backward()
        assert books.held.now == books.dense.now == books.bound.now == 0
        assert books.dense.peak >= ours.bytes


def test_held_is_the_sum_of_what_the_codecs_hold() -> None:
    """Of the exact savings by hand: which storages stay, one bit for each ReLU, one byte for each maximum."""
    model, x = net(), image()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(("1.", "5.")))
    n = 6
    norms = n * 6 * 100 * 4 + n * 6 * 9 * 4  # inputs of the two batch norms
    statistics = 2 * 2 * 6 * 4
    bits = (n * 6 * 100) // 8 + -(-n * 6 * 9 // 8)
    offsets = n * 6 * 25
    squares = n * 4 * 4
    with kept(model, "exact", x) as books:
        loss = model(x).square().sum()
        reserve = sum(line.held for line in books.lines if line.role == "output" and line.operation == "batch_norm")
        assert books.held.now == norms + statistics + bits + offsets + squares + (reserve - statistics)
        del loss
    assert books.held.now == 0


def test_nothing_is_alive_after_a_step() -> None:
    for policy in ("exact", "quantized:4-bit", "surgeon"):
        adapted = acclimate.adapt(net(), "tent", memory=policy)
        entries: list[weakref.ref[object]] = []
        original = keeper._Entry.__init__

        def spy(self: object, *args: object, original: object = original, entries: list = entries) -> None:
            original(self, *args)
            entries.append(weakref.ref(self))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keeper._Entry, "__init__", spy)
            gc.disable()
            try:
                for number in range(20):
                    adapted(image(number))
                    books = adapted._keeper
                    assert books.held.now == books.dense.now == books.bound.now == 0
                    assert not any(entry() is not None for entry in entries)
                    assert books.held.peak > 0
            finally:
                gc.enable()
        assert len(entries) > 20 * 5


def test_an_address_used_again_is_another_storage() -> None:
    """Tensors of one size, saved, freed and made again: each is packed for itself and counted."""
    x = torch.randn(64, requires_grad=True)
    with kept(nn.Identity(), "exact", x) as books:
        for number in range(50):
            y = F.relu(x * (1.0 if number % 2 else -1.0))
            (gradient,) = torch.autograd.grad(y.sum(), x)
            sign = 1.0 if number % 2 else -1.0
            assert torch.equal(gradient, sign * ((x * sign) > 0))
            del y, gradient
            assert books.held.now == 0
        outputs = []
        for number in range(20):
            y = torch.sin(x.detach().clone().requires_grad_() * (number + 1))
            outputs.append(y)
        held = books.held.now
        assert held == books.dense.now == 20 * 64 * 4
        del outputs, y
        assert books.held.now == 0


def test_the_books_count_what_is_kept_and_when_it_is_freed() -> None:
    """sin keeps its input, and so does the next one: two storages of 400 bytes, then none."""
    x = torch.rand(100, requires_grad=True)
    with kept(nn.Identity(), "stock", x) as books:
        y = x.sin().sin()
        assert books.held.now == books.held.peak == 800
        del y
        assert books.held.now == 0 and books.held.peak == 800
        z = x.sin()
        assert books.held.now == 400 and books.held.peak == 800
        z.sum().backward()
    assert books.held.now == 0


def test_the_books_leave_out_what_lives_anyway() -> None:
    layer = nn.Linear(10, 10, bias=False)
    x = torch.rand(4, 10, requires_grad=True)
    with kept(layer, "stock", x) as books:
        y = layer(x)
    assert books.held.peak == 160, "the input; the weight is the model's own"
    del y


def test_a_view_keeps_its_whole_storage() -> None:
    x = torch.randn(10, 100, requires_grad=True)
    with kept(nn.Identity(), "exact", x) as books:
        big = x * 1
        y = torch.sin(big[:1])
        del big
        assert books.held.now == books.dense.now == 10 * 100 * 4
        z = torch.sin(y)
        assert books.held.now == 10 * 100 * 4 + 100 * 4
        del y, z
        assert books.held.now == 0


def test_what_several_operations_save_is_kept_once() -> None:
    x = torch.randn(6, 5, requires_grad=True)
    first, second = (seeded(lambda: nn.Linear(5, 4), seed) for seed in (1, 2))
    with kept(nn.ModuleList([first, second]), "quantized", x) as books:
        y = x * 1
        total = first(y).sum() + second(y).sum()
        assert books.dense.now == y.numel() * 4 and books.held.now == y.numel() + 6 * 4
        del total


def test_bits_are_not_kept_beside_the_whole() -> None:
    """A ReLU's output that the next layer keeps whole needs no bits; where that layer is frozen it needs only bits."""
    for learns, expected in ((True, 32 * 300 * 4), (False, 32 * 300 // 8)):
        layer = seeded(lambda: nn.Linear(300, 5, bias=False)).requires_grad_(learns)
        x = torch.randn(32, 300, requires_grad=True)
        with kept(layer, "exact", x) as books:
            y = x.relu()
            answer = layer(y)
            assert books.held.now == expected
            del y
            wanted = torch.autograd.grad(layer(x.relu()).square().sum(), x)[0]
        assert torch.equal(torch.autograd.grad(answer.square().sum(), x)[0], wanted)
        del answer
        assert books.held.now == books.bound.now == books.dense.now == 0


def test_exact_savings_never_take_more_than_stock() -> None:
    block = (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    net = seeded(lambda: nn.Sequential(*block, nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(8, 8, 3)))
    x = torch.randn(8, 8, 16, 16)
    with kept(net, "exact", x) as books:
        net(x).sum().backward()
    assert 0 < books.held.peak <= books.dense.peak


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


class Odd(nn.Module):
    """A network with a part that is none of torch's functions."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Linear(6, 4)
        self.inner = nn.Sequential(nn.Conv2d(6, 6, 3), nn.GroupNorm(2, 6), nn.ReLU())
        self.part = part
        self.run = torch.compile(self.inner, backend="aot_eager") if part == "compiled" else self.inner

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        if self.part == "function":
            x = Cube.apply(self.inner(x))
        elif self.part == "compiled":
            x = self.run(x)
        else:
            x = checkpoint(self.inner, x, use_reentrant=self.part == "reentrant")
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("part", ["function", "reentrant", "plain", "compiled"])
@pytest.mark.parametrize("policy", ["exact", "quantized:4-bit"])
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_known_is_kept(part: str, policy: str) -> None:
    """By `backward`, since reentrant checkpoints take no other."""

    def run(policy: str) -> dict[str, Tensor]:
        model = seeded(lambda: Odd(part))
        x = image().requires_grad_()
        for name, weight in model.named_parameters():
            weight.requires_grad_("norm" in name or name == "inner.1.weight" or part == "function")
        with kept(model, policy, x) if policy else contextlib.nullcontext():
            model(x).square().sum().backward()
        learned = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
        return {**learned, "input": x.grad}

    expected, found = run(""), run(policy)
    for name, gradient in expected.items():
        if policy == "exact":
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))
        elif name != "inner.0.bias":
            assert F.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0) > 0.9, name


def test_it_is_told_once_for_each_adaptation() -> None:
    adapted = acclimate.adapt(seeded(lambda: Odd("function")), "tent", memory="exact")
    with pytest.warns(UserWarning, match="kept as they are") as seen:
        for number in range(3):
            adapted(image(number))
        adapted.memory(image(4))
        adapted(image(5))
    assert len(seen) == 1


def test_a_copy_shares_no_books() -> None:
    adapted = acclimate.adapt(net(), "tent", memory="exact")
    adapted(image())
    twin = copy.deepcopy(adapted)
    assert torch.equal(adapted(image(1)), twin(image(1)))
    assert twin._keeper is not adapted._keeper
    assert isinstance(pickle.loads(pickle.dumps(adapted._keeper)), Keeper)
    del adapted
    gc.collect()
    twin(image(2))


def test_a_step_that_fails_leaves_no_hooks_behind() -> None:
    adapted = acclimate.adapt(net(), "tent", memory="exact")
    adapted(image())
    with pytest.raises(ValueError, match="expected"):
        adapted(image()[:, :2])
    x = torch.randn(4, requires_grad=True)
    y = x.sin()
    assert type(y.grad_fn._saved_self) is Tensor
    adapted(image(1))
    assert adapted.last.updated
