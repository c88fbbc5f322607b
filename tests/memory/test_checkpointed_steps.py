"""Checkpointed steps: bytes counted by hand and by what lives, state as without, nothing left behind."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import acclimate
from acclimate import Budget
from acclimate.anatomy import everything, longest_sequential
from acclimate.core.method import methods
from acclimate.memory import Checkpointed, ExactSavings, QuantizedSavings, SurgeonSavings
from acclimate.methods.sar import SAR
from acclimate.methods.tent import Tent
from acclimate.models.residual import cifar10_resnet20
from acclimate.models.transformer import VisionTransformer
from conformance.declarations import DECLARATIONS, DEFAULT, normalization_specs
from conformance.models import MODELS
from conformance.tools import answers

from .keeping import kept, seeded

FULL = Tent(select=everything, learning_rate=1e-3, optimizer="sgd")
WIDTH, SIDE = 8, 16
BLOCKS = 4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(WIDTH), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def batch(count: int = 8, seed: int = 0, side: int = SIDE) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_hand(count: int) -> tuple[int, int]:
    """Bytes of float32 activations that are held at the peak, with checkpoints and without.

    Saved are the image (for the stem), the input of each block, within a block the input of its first norm, the output
    of its first ReLU, the input of its second norm and its own output, which is the next one's input. Vectors are left
    out. The peak with checkpoints is within the last block: all inputs, and four tensors.
    """
    image, activation = 4 * count * 3 * SIDE**2, 4 * count * WIDTH * SIDE**2
    return image + BLOCKS * activation + 4 * activation, image + activation + 4 * BLOCKS * activation


@pytest.mark.parametrize("count", [8, 32])
def test_the_peak_is_inputs_and_one_block(count: int) -> None:
    adapted = acclimate.adapt(seeded(Net), FULL, memory="checkpointed")
    memory = adapted.memory(batch(count))
    held, stock = by_hand(count)
    assert memory.saved == pytest.approx(held, rel=0.02)
    assert memory.stock == pytest.approx(stock, rel=0.02)
    assert memory.predicted == pytest.approx(memory.saved, rel=0.05)
    assert memory.stock == acclimate.adapt(seeded(Net), FULL).memory(batch(count)).saved, "what stock counts itself"


def test_norms_alone_within_exact() -> None:
    """Frozen convolutions keep nothing, ReLU one bit: of a block the inputs of its two norms, two bits a value.

    At the end of the forward the inputs of blocks are there; the image and the head's input are read by no one.
    """
    adapted = acclimate.adapt(seeded(Net), "tent", memory="checkpointed:exact")
    activation = 4 * 8 * WIDTH * SIDE**2
    held = BLOCKS * activation + 2 * activation + 2 * activation / 32
    assert adapted.memory(batch(8)).saved == pytest.approx(held, rel=0.02)


def test_a_residual_network() -> None:
    """ResNet-20 in units of one activation of stage one, a = 4 N 16 32^2 bytes; stages two and three have a/2, a/4.

    Kept outside of blocks: the image 3/16 a, the input of the stem's norm a, its ReLU's output a, which is block 1's
    input. The peak is in block 3: inputs of three blocks, four tensors within, the stem.
    """
    adapted = acclimate.adapt(cifar10_resnet20(), FULL, memory="checkpointed")
    memory = adapted.memory(batch(20, side=32))
    unit = 4 * 20 * 16 * 32**2
    assert memory.saved == pytest.approx((3 / 16 + 1 + 3 + 4) * unit, rel=0.02)
    assert memory.saved < 0.4 * memory.stock


class Living(TorchDispatchMode):
    """Which storages were made in this block, and which of them live."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.made[reference.cdata] = reference, storage.nbytes()
        return found

    @property
    def bytes(self) -> int:
        return sum(size for reference, size in self.made.values() if not reference.expired())


@pytest.mark.parametrize("policy", ["stock", "checkpointed"])
def test_what_lives_is_what_is_counted(policy: str) -> None:
    """At the end of a forward, and while backward stands in the last block: the storages that are alive."""
    model, x = seeded(Net).train(), batch()
    activation = 4 * 8 * WIDTH * SIDE**2
    with kept(model, policy, x) as books, Living() as living:
        seen: list[tuple[int, int]] = []
        look = lambda *_: seen.append((living.bytes, books.held.now))  # noqa: E731
        model.blocks[-1].norm2.register_forward_hook(lambda module, inputs, output: output.register_hook(look) and None)
        answer = model(x)
        assert living.bytes == pytest.approx(books.held.now, rel=0.02)
        torch.autograd.grad(answer.sum(), list(model.parameters()))
    assert books.held.now == books.dense.now == 0
    ((alive, counted),) = seen
    assert counted > 0.9 * BLOCKS * activation, "there is something to compare"
    assert -0.02 * counted <= alive - counted <= 3.1 * activation, "gradients, and what the norm has done with, on top"


STEPS: dict[str, Any] = {
    "tent": Tent(learning_rate=1e-2),
    "steps": Tent(learning_rate=1e-2, steps=3),
    "episodic": Tent(learning_rate=1e-2, episodic=True),
    "sar": SAR(margin=1.0),
    **{
        name: dataclasses.replace(methods.build(name), memory="stock", **DECLARATIONS.get(name, DEFAULT).settings)
        for name in ("palm", "cotta", "rotta", "note", "memo", "adacontrast", "law", "surgeon")
    },
}


def same_steps(method: Any, model: str, *policies: str, **options: Any) -> None:
    """Three batches: answers, every declared tensor, generators and reports are as with stock."""
    plain, *others = (acclimate.adapt(MODELS[model][0](), method, memory=p, **options) for p in ("stock", *policies))
    batches = [MODELS[model][1](number) for number in range(3)]
    expected = answers(plain, batches)
    for other in others:
        torch.testing.assert_close(answers(other, batches), expected, rtol=1e-5, atol=1e-6)
        own, found = (dict(adapted.state.table.entries()) for adapted in (plain, other))
        assert own.keys() == found.keys()
        for name, slot in own.items():
            torch.testing.assert_close(
                found[name].tensor, slot.tensor, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: n + m
            )
        assert other.state.table.export()[1] == plain.state.table.export()[1]
        assert (other.last.forwards, other.last.backwards) == (plain.last.forwards, plain.last.backwards)


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_those_of_stock(name: str) -> None:
    same_steps(STEPS[name], "residual", "checkpointed", "checkpointed:exact")


@pytest.mark.parametrize("name", ["tent", "rotta", "adacontrast"])
@pytest.mark.parametrize("normalization", normalization_specs())
def test_every_normalization_moves_its_statistics_once(name: str, normalization: str) -> None:
    """RoTTA and AdaContrast learn in forwards that move statistics, and normalise by what these move to."""
    same_steps(STEPS[name], "residual", "checkpointed", normalization=normalization_specs()[normalization])


def test_transformer_blocks() -> None:
    net, x = VisionTransformer(5, 16, patch=4, width=32, depth=4, heads=2), batch(16)
    for method in (Tent(learning_rate=1e-2), FULL):
        plain, other = (acclimate.adapt(net, method, memory=policy) for policy in ("stock", "checkpointed"))
        for number in range(3):
            torch.testing.assert_close(other(batch(16, number)), plain(batch(16, number)), rtol=1e-5, atol=1e-6)
        memory = other.memory(x)
        assert memory.saved < 0.6 * memory.stock == 0.6 * plain.memory(x).saved


@pytest.mark.parametrize("within", [ExactSavings(), QuantizedSavings(), SurgeonSavings(), "quantized:4-bit"])
def test_other_policies_within(within: Any) -> None:
    """Their savings on top, their shares and probes as alone."""
    net, x = seeded(Net), batch(32)
    other = acclimate.adapt(net, FULL, memory=Checkpointed(within=within))
    for number in range(2):
        assert other(batch(32, number)).isfinite().all() and other.last.skipped is None
    assert other.memory(x).saved <= 1.01 * acclimate.adapt(net, FULL, memory="checkpointed").memory(x).saved
    inner = Checkpointed(within=within).inner
    assert other._policy.passes(32) == inner.passes(32)
    assert Checkpointed(within=inner).held_to(1000.0) == Checkpointed(within=inner.held_to(1000.0))


def test_within_a_budget() -> None:
    net, x = seeded(Net), batch(32)
    asked = acclimate.adapt(net, FULL, memory="checkpointed", budget=Budget(memory=by_hand(32)[0] + 100_000))
    asked(x)
    assert asked.plan.chosen.policy == Checkpointed() and len(asked.plan.tried) == 1


def forwards(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if "forward" in vars(part)]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    adapted = acclimate.adapt(seeded(Net), "tent", memory=Checkpointed(within=ExactSavings()))
    names = list(adapted.state_dict())
    adapted(batch())
    assert not forwards(adapted) and list(adapted.state_dict()) == names
    assert adapted.last.forwards == 1 and adapted.last.backwards == 1
    twin, pickled = copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted.merged()))
    adapted.save(tmp_path / "state")
    loaded = acclimate.load(seeded(Net), tmp_path / "state")
    assert loaded.method.memory == Checkpointed(within="exact")
    with adapted.frozen():
        torch.testing.assert_close(adapted(batch(8, 1)), pickled(batch(8, 1)), rtol=1e-4, atol=1e-5)
    expected = adapted(batch(8, 1))
    assert torch.equal(twin(batch(8, 1)), expected) and torch.equal(loaded(batch(8, 1)), expected)


def test_a_step_that_fails_leaves_no_patch() -> None:
    adapted = acclimate.adapt(seeded(Net), FULL, memory="checkpointed")
    adapted(batch())
    with pytest.raises(ValueError, match="expected"):
        adapted(batch()[:, :2])
    assert not forwards(adapted)
    before = adapted.state.batches
    handle = adapted.module.blocks[2].norm1.register_forward_hook(lambda *_: math.log(0))
    with pytest.raises(ValueError, match=r"domain|positive"):
        adapted(batch())
    handle.remove()
    assert not forwards(adapted) and adapted.state.batches == before
    adapted(batch(8, 1))
    assert adapted.last.updated


def test_a_forward_of_ones_own_is_put_back() -> None:
    """A block that somebody else has given a forward keeps it."""
    adapted = acclimate.adapt(seeded(Net), FULL, memory="checkpointed")
    block = adapted.module.blocks[1]
    own, calls = block.forward, []
    replaced = lambda x: calls.append(1) or own(x)  # noqa: E731
    block.forward = replaced
    adapted(batch())
    assert block.forward is replaced and len(calls) == 2


def test_models_without_blocks() -> None:
    """Of a container's modules pieces run again, which begin with nothing that writes into its input."""
    modules = [part for _ in range(4) for part in (nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(True))]
    net = seeded(lambda: nn.Sequential(*modules, nn.Flatten(), nn.Linear(3 * SIDE**2, 5)))
    assert longest_sequential(net) == ("", net)
    plain, pieces = (acclimate.adapt(net, FULL, memory=policy) for policy in ("stock", "checkpointed"))
    for number in range(3):
        torch.testing.assert_close(pieces(batch(8, number)), plain(batch(8, number)), rtol=1e-5, atol=1e-6)
    memory = pieces.memory(batch())
    assert memory.saved < 0.7 * memory.stock
    lines = [line.layer for line in pieces.memory_report(batch()).lines if line.operation == "block"]
    assert len(set(lines)) <= 4 and not any("ReLU" in line for line in lines)
    with pytest.raises(ValueError, match=r"ConvNet has no blocks .* Choose memory='exact'"):
        acclimate.adapt(MODELS["batch_norm"][0](), "tent", memory="checkpointed")
    acclimate.adapt(MODELS["batch_norm"][0](), "bn", memory="checkpointed")(MODELS["batch_norm"][1](0))


def test_the_report_has_a_line_for_what_runs_again() -> None:
    adapted = acclimate.adapt(seeded(Net), FULL, memory="checkpointed")
    report = adapted.memory_report(batch())
    inside = [line for line in report.lines if line.codec == "Rerun"]
    assert [line.layer for line in inside] == [f"blocks.{number}" for number in range(BLOCKS)]
    activation = 4 * 8 * WIDTH * SIDE**2
    assert all(line.held == 0 for line in inside)
    dense = [line.dense / activation for line in inside]
    assert dense == pytest.approx([5, 4, 4, 4], rel=0.02), "the first one's input is nobody's output that is saved"
    inputs = [line for line in report.lines if line.operation == "block" and line.role == "input"]
    assert all(line.held == pytest.approx(activation, rel=0.02) for line in inputs)
