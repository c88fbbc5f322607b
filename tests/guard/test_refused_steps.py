"""What guards see of steps that are refused, of arguments without rows, and of answers with one class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.guard.default import DefaultGuard
from acclimate.methods.tent import Tent
from acclimate.models import load_model
from acclimate.streams import open_stream
from conformance.models import MODELS
from conformance.tools import assert_same, book

FACTORY, BATCH = MODELS["batch_norm"]


class Broken(nn.Module):
    """Answers as the network does, and no gradient of it is finite."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits + torch.sqrt((logits * 0).abs()).sum(1, keepdim=True)


def _wrong(model: nn.Module) -> int:
    stream = open_stream("digits:sorted", size=300, batch_size=30, corruptions=("jpeg_compression", "gaussian_noise"))
    return sum(int((model(batch.images).argmax(1) != batch.labels).sum()) for batch in stream)


@pytest.mark.parametrize("broken", [Broken, None])
def test_a_refused_step_is_watched_like_any_other(broken: type[nn.Module] | None) -> None:
    """On labels in clusters batch statistics ruin the answers, whether anything can be learned or not."""
    net = load_model("digits-resnet")
    source, method = _wrong(net), Tent() if broken else Tent(learning_rate=10.0)
    model = broken(net).eval() if broken else net
    guarded, free = (acclimate.adapt(model, method, guard=guard) for guard in ("default", None))
    assert _wrong(free) > 2 * source
    assert _wrong(guarded) < 1.1 * source
    assert guarded.last.verdict.refused and guarded.tally["judged"] == 600 and guarded.tally["held"] > 500


def test_what_a_refused_step_did_is_undone_but_for_what_the_guard_saw() -> None:
    adapted = acclimate.adapt(Broken(FACTORY()).eval(), "tent", guard=DefaultGuard(least=4))
    adapted(BATCH(0))
    before = book(adapted)
    adapted(BATCH(1))
    assert adapted.last.verdict.refused and adapted.last.guard is not None
    after = book(adapted)
    changed = {name for name in before if str(before[name]) != str(after[name])}
    assert changed and all("guard" in name for name in changed)


def test_a_guard_sees_no_loss_and_no_way_of_a_refused_step() -> None:
    adapted = acclimate.adapt(Broken(FACTORY()).eval(), "tent", guard="asr+trust_region+drift+sar+default")
    for number in range(3):
        assert adapted(BATCH(number)).isfinite().all()
    for name, slot in adapted.state.table.slots.items():
        assert slot.tensor.isfinite().all(), name


class Texts(nn.Module):
    """A second argument with a row for each class, of which there may be as many as rows in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FACTORY()

    def forward(self, x: Tensor, texts: Tensor) -> Tensor:
        return self.net(x) @ texts.T


@pytest.mark.parametrize("guard", ["default", "recover", "asr", "default+drift"])
def test_an_argument_that_happens_to_have_a_row_for_each_sample(guard: str) -> None:
    texts = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(BATCH(0).dtype)
    texts = texts.repeat(1, FACTORY()(BATCH(0)).shape[1] // 4 + 1)[:, : FACTORY()(BATCH(0)).shape[1]]
    adapted = acclimate.adapt(Texts().eval(), "tent", guard=guard)
    for number in range(4):
        assert adapted(BATCH(number), texts).shape == (len(BATCH(number)), 8)
    assert adapted.last.guard is not None


@pytest.mark.parametrize("guard", ["default", "sar", "asr", "drift", "recover", "betting"])
def test_one_output_is_nothing_to_judge(guard: str) -> None:
    net = FACTORY()
    net.head = nn.Linear(net.head.in_features, 1).to(net.head.weight.dtype)
    guarded, free = acclimate.adapt(net.eval(), "bn", guard=guard), acclimate.adapt(net.eval(), "bn", guard=None)
    assert_same(guarded(BATCH(0)), free(BATCH(0)), "answer")
    assert guarded.last.guard is None


class Odd(DefaultGuard):
    """Known to nobody."""


def test_a_guard_that_is_not_registered_is_passed_again(tmp_path) -> None:
    adapted = acclimate.adapt(FACTORY(), "tent", guard=Odd(trust=0.0))
    adapted(BATCH(0))
    adapted.save(tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=r"guard"):
        acclimate.load(FACTORY(), tmp_path / "state.safetensors", guard=Odd(trust=0.01))
    found = acclimate.load(FACTORY(), tmp_path / "state.safetensors", guard=Odd(trust=0.0))
    assert_same(book(found), book(adapted), "state")
