"""DUA: momenta, running statistics against torch's own batch norm on the copies, and its end after some samples."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.methods.bn import BN
from acclimate.methods.rdumb import RDumb
from acclimate.methods.tent import Tent
from acclimate.normalization.decaying import DecayingStatistics
from conformance.models import MODELS
from conformance.tools import assert_same, book
from methods.reference import small_net, stream


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Copies that differ, without anything to draw."""
    return torch.stack([image.roll(number, 2) * (1 - 0.1 * number) for number, image in enumerate(x)])


def plain(net: nn.Module, batches: list[Tensor], copies: int, samples: int) -> list[Tensor]:
    """One image after another: its copies through torch's batch norms in train mode, then the batch in eval mode."""
    twin = copy.deepcopy(net)
    norms = [module for module in twin.modules() if isinstance(module, nn.BatchNorm2d)]
    answers, rate, seen = [], 0.1, 0
    for x in batches:
        for image in x:
            if seen == samples:
                break
            seen, rate = seen + 1, rate * 0.94
            for norm in norms:
                norm.momentum = rate + 0.005
            twin.train()
            twin(shifted(image.expand(copies, -1, -1, -1), torch.Generator()))
        answers.append(twin.eval()(x))
    return [*answers, *(norm.running_mean for norm in norms), *(norm.running_var for norm in norms)]


def test_published_momenta():
    found = DecayingStatistics()
    assert [found.momentum_of(k) for k in (1, 2, 3)] == pytest.approx([0.099, 0.09336, 0.0880584])
    assert found.momentum_of(80) == pytest.approx(0.00570832, abs=1e-8)


@pytest.mark.parametrize("samples", [0, 7, 12, 30])
@torch.no_grad()
def test_statistics_are_those_of_torch_on_the_copies(samples):
    batches = stream(3)
    settings = DecayingStatistics(copies=5, samples=samples, views=shifted)
    adapted = acclimate.adapt(small_net(), "source", normalization=settings)
    found = [adapted(x) for x in batches]
    for key in ("mean", "var"):
        found += [layer.get_buffer(f"running_{key}") for layer in adapted.state.layers]
    for ours, theirs in zip(found, plain(small_net(), batches, 5, samples), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)


def test_forwards_are_counted_and_end():
    """Of ten samples at four copies, batches of 12 rows take all at once: 40 rows more."""
    adapted = acclimate.adapt(small_net(), BN(normalization=DecayingStatistics(copies=4, samples=10)))
    rows: list[int] = []
    adapted.module.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    adapted(stream(1)[0])
    assert rows == [4] * 10 + [12]
    assert adapted.last.forwards == pytest.approx(1 + 40 / 12)
    rows.clear()
    adapted(stream(2)[1])
    assert rows == [12] and adapted.last.forwards == 1
    assert adapted.method.cost().forwards == 5


def test_samples_are_counted_over_batches():
    adapted = acclimate.adapt(small_net(), BN(normalization=DecayingStatistics(copies=2, samples=10)))
    seen = []
    for x in stream(4):
        adapted(x[:4])
        seen.append(adapted.state.table.counters["normalization.seen"])
    assert seen == [4, 8, 10, 10]
    adapted.reset()
    assert adapted.state.table.counters["normalization.seen"] == 0


@pytest.mark.parametrize(
    "method",
    [
        Tent(episodic=True, normalization=DecayingStatistics(copies=2, samples=10)),
        RDumb(reset_every=1, normalization=DecayingStatistics(copies=2, samples=10)),
    ],
    ids=["episodic", "reset after each batch"],
)
def test_what_forgets_the_statistics_begins_to_count_again(method):
    """Otherwise a restart after the last sample would leave the source's statistics for good."""
    adapted = acclimate.adapt(small_net(), method)
    for x in stream(3):
        adapted(x)
    assert adapted.last.forwards > 1


def test_a_refused_batch_gives_its_samples_back():
    factory, batch = MODELS["batch_norm"]
    settings = Tent(normalization=DecayingStatistics(copies=2, samples=10), learning_rate=1e6, optimizer="sgd")
    adapted = acclimate.adapt(factory(), settings)
    before = book(adapted)
    adapted(batch(0))
    assert adapted.last.skipped or adapted.last.reason
    assert_same(book(adapted), before, "state after a refused step")


def test_copies_are_the_images_of_a_square():
    """Without a crop: the four turns of an image, two of one that is not square; with one: whole pixels moved."""
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    turns = {tuple(image.rot90(k, (2, 3)).flatten().tolist()) for k in range(4)}
    seen: list[Tensor] = []
    for crop in ("none", "padded"):
        adapted = acclimate.adapt(Seen(seen, 1), "source", normalization=DecayingStatistics(samples=1, crop=crop))
        adapted(image)
    unmoved, moved = (copies for copies in seen if len(copies) == 64)
    assert {tuple(each.flatten().tolist()) for each in unmoved} == turns
    whole = moved.round()
    assert torch.allclose(moved, whole, atol=1e-4), "shifted by whole pixels: black, or a pixel of the image"
    assert len({tuple(each.flatten().tolist()) for each in whole}) > 8
    wide = torch.arange(6.0).reshape(1, 1, 2, 3)
    seen.clear()
    acclimate.adapt(Seen(seen, 1), "source", normalization=DecayingStatistics(samples=1, crop="none"))(wide)
    found = {tuple(each.flatten().tolist()) for each in seen[0]}
    assert found == {tuple(wide.flatten().tolist()), tuple(wide.rot90(2, (2, 3)).flatten().tolist())}


class Seen(nn.Module):
    """Keeps what comes in."""

    def __init__(self, seen: list[Tensor], channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.seen = seen
        self.head = nn.Linear(channels, 2)

    def __deepcopy__(self, memo: dict) -> Seen:
        twin = Seen(self.seen, self.norm.num_features)
        twin.load_state_dict(self.state_dict())
        return twin

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.head(self.norm(x).mean((2, 3)))


@pytest.mark.parametrize("model", ["mlp"])
def test_tables_have_no_copies_to_make(model):
    factory, batch = MODELS[model]
    adapted = acclimate.adapt(factory(), "bn", normalization="dua")
    before = book(adapted)
    with pytest.raises(ValueError, match=r"views of dua.*images.*Pass views= of your own"):
        adapted(batch(0))
    assert_same(book(adapted), before, "state after an input that was refused")
    noisy = DecayingStatistics(copies=4, samples=3, views=lambda x, g: x + torch.randn(x.shape, generator=g) * 0.1)
    found = acclimate.adapt(factory(), "bn", normalization=noisy)
    assert found(batch(0)).isfinite().all() and found.last.forwards == 1 + 12 / 8


@pytest.mark.parametrize(
    "bad", [{"momentum": 1.5}, {"decay": -1}, {"floor": 2}, {"copies": 0}, {"samples": -1}, {"crop": "round"}]
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}.* must"):
        DecayingStatistics(**bad)
