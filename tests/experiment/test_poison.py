"""Attacks do what they say, and the guard keeps benign answers from paying for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.core.guard import Guard
from acclimate.experiment.poison.attack import Attack, Knowledge, Scene, attacks, by_batch, climb
from acclimate.experiment.poison.plain import Bystanders, StalledCamera
from acclimate.experiment.poison.stream import AFTER, ATTACKED, PoisonedStream
from acclimate.functional import entropy
from acclimate.models import load_model
from acclimate.streams import CLEAN, Batch, Dataset, Segment, load_dataset, open_stream
from acclimate.streams.shifting import shifted

FOG = Segment("fog", 3)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return load_model("digits-resnet")


@pytest.fixture(scope="module")
def own() -> Dataset:
    return load_dataset("digits", "train")


def scene(attack: Attack, net: nn.Module, own: Dataset, *, count: int = 12, benign: Tensor | None = None) -> Scene:
    """What a stream would hand over, at its first batch."""
    knows = attack.knows
    return Scene(
        count=count,
        labels=own.labels,
        take=lambda index: shifted(own, index, FOG, 0),
        generator=torch.Generator().manual_seed(5),
        model=net if knows.weights == "source" else None,
        benign=benign if knows.benign else None,
        position=0,
    )


def others(net: nn.Module) -> tuple[Tensor, Tensor]:
    test = load_dataset("digits")
    index = torch.arange(48)
    return shifted(test, index, FOG, 0), test.labels[index]


@pytest.mark.parametrize("name", attacks.classes())
def test_rows_are_images_of_the_asked_number_and_follow_from_the_seed(name: str, net: nn.Module, own: Dataset) -> None:
    attack = attacks.build(name)
    benign, _ = others(net)
    first, again = (attack.rows(scene(attack, net, own, benign=benign)) for _ in range(2))
    assert first.shape == (12, 3, 32, 32) and first.dtype == torch.float32 and not first.requires_grad
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    assert torch.equal(first, again)
    assert attack.count(48) / (48 + attack.count(48)) == pytest.approx(attack.share, abs=0.01)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert ("no rows of others" in str(attack.knows)) is not attack.knows.benign


def test_invading_rows_turn_the_answers_of_others_far_more_than_bystanders(net: nn.Module, own: Dataset) -> None:
    """Answers of batch norm adaptation to the same 48 rows, with 12 rows of each kind among them."""
    benign, labels = others(net)

    def wrong(name: str) -> float:
        attack = attacks.build(name)
        rows = attack.rows(scene(attack, net, own, benign=benign))
        adapted = acclimate.adapt(net, "bn", guard=None)
        return float((adapted(torch.cat([benign, rows]))[:48].argmax(1) != labels).float().mean())

    usual = wrong("bystanders")
    assert wrong("invading") > usual + 0.25
    assert wrong("invading-blind") > usual + 0.1


def test_invading_needs_statistics_that_rows_share() -> None:
    with pytest.raises(ValueError, match="cannot change each other's answers"):
        by_batch(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


def test_transferred_rows_reach_their_aim_on_the_source(net: nn.Module, own: Dataset) -> None:
    names = ("bystanders", "entropy", "wrong-labels", "noise")
    rows = {name: attacks.build(name).rows(scene(attacks.build(name), net, own)) for name in names}
    with torch.no_grad():
        logits = {name: net(each) for name, each in rows.items()}
    usual, raised = (float(entropy(logits[name]).mean()) for name in ("bystanders", "entropy"))
    assert raised > max(1.5 * usual, 0.7 * math.log(10))
    drawn = scene(attacks.build("wrong-labels"), net, own)
    aims = (own.labels[drawn.draw(12)] + 1) % 10
    assert float((logits["wrong-labels"].argmax(1) == aims).float().mean()) > 0.9
    assert float(logits["noise"].softmax(1).amax(1).mean()) > 0.9
    flat = rows["noise"].flatten(1)
    assert float(torch.corrcoef(flat).fill_diagonal_(0).abs().max()) < 0.5, "no two rows are one picture"


def test_climbing_keeps_the_best_of_the_way() -> None:
    """A goal by row with its top at 0.3, and one number for all: no step past the top is kept."""
    start = torch.tensor([0.0, 0.9]).reshape(2, 1, 1, 1)
    found = climb(start, lambda rows: -(rows - 0.3).abs().flatten(1).sum(1), 8, 0.2)
    assert (found.flatten() - 0.3).abs().max() < 0.05
    whole = climb(start, lambda rows: -(rows - 0.3).pow(2).sum(), 8, 0.2)
    assert (whole.flatten() - 0.3).abs().max() < 0.2
    assert torch.equal(climb(start, lambda rows: -(rows - start).abs().sum(), 3, 0.5), start), "none was better"


def test_a_flood_is_one_class_and_a_stalled_camera_one_frame(net: nn.Module, own: Dataset) -> None:
    flood = scene(attacks.build("flood"), net, own)
    chosen = own.labels[scene(attacks.build("flood"), net, own).draw(12, (own.labels == 0).nonzero().flatten())]
    assert chosen.tolist() == [0] * 12
    expected = flood.draw(12, (own.labels == 0).nonzero().flatten())
    rows = attacks.build("flood").rows(scene(attacks.build("flood"), net, own))
    assert torch.equal(rows, shifted(own, expected, FOG, 0))
    frames = StalledCamera(hold=2, noise=0.001).rows(scene(StalledCamera(), net, own))
    assert float((frames - shifted(own, torch.tensor([0]), FOG, 0)).abs().max()) < 0.01
    assert len(frames.flatten(1).unique(dim=0)) == 12, "never identical, which the input check would see"


@pytest.mark.parametrize(
    ("settings", "hint"), [({"share": 0.0}, "share"), ({"steps": 0}, "steps"), ({"rate": 0}, "rate")]
)
def test_settings_out_of_range_are_refused(settings: dict, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        attacks.classes()["invading"](**settings)


def poisoned(net: nn.Module, own: Dataset, attack: Attack, *, size: int = 100, corruptions=("fog", "snow")):
    benign = open_stream("digits:continual", size=size, batch_size=25, corruptions=corruptions)
    return benign, PoisonedStream(benign, own, attack, net)


def test_a_poisoned_stream_is_the_benign_one_with_rows_among_its_first_half(net: nn.Module, own: Dataset) -> None:
    benign, stream = poisoned(net, own, Bystanders(share=0.5), size=50)
    assert (len(stream), stream.segments, stream.domains) == (4, (ATTACKED, AFTER), (ATTACKED, AFTER))
    first = list(stream)
    for mine, other in zip(first, benign, strict=True):
        known = mine.labels >= 0
        assert len(mine.labels) == (50 if mine.position < 2 else 25)
        assert mine.segment == (ATTACKED if mine.position < 2 else AFTER)
        order, theirs = mine.index[known].argsort(), other.index.argsort()
        assert torch.equal(mine.images[known][order], other.images[theirs])
        assert torch.equal(mine.labels[known][order], other.labels[theirs])
        assert (mine.index[~known] == -1).all()
    assert not torch.equal(first[0].labels >= 0, torch.arange(50) < 25), "rows are shuffled among the others"
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, stream, strict=True))
    prints = {
        benign.fingerprint(),
        stream.fingerprint(),
        PoisonedStream(benign, own, Bystanders(share=0.4), net).fingerprint(),
        PoisonedStream(benign, own, Bystanders(share=0.5), net, seed=1).fingerprint(),
    }
    assert len(prints) == 4
    assert stream.protocol()["poison"]["attack"]["share"] == 0.5  # pyright: ignore


class Spy(Attack):
    """Keeps what it was given."""

    knows = Knowledge("none", benign=False, when="offline")

    def rows(self, scene: Scene) -> Tensor:
        seen.append(scene)
        return torch.zeros(scene.count, 3, 32, 32)


seen: list[Scene] = []


def test_an_attack_is_given_what_it_says_it_knows_and_nothing_else(net: nn.Module, own: Dataset) -> None:
    seen.clear()
    list(poisoned(net, own, Spy(), size=50)[1])
    (given,) = seen  # offline: once
    assert given.model is None and given.benign is None
    with pytest.raises(ValueError, match="knows no weights"):
        _ = given.source
    test = load_dataset("digits", "train")
    assert torch.equal(given.take(torch.arange(2)), shifted(test, torch.arange(2), CLEAN, 0)), "before any shift"


def answers(
    stream: PoisonedStream, net: nn.Module, method: str, guard: str | Guard | None
) -> Iterator[tuple[Batch, Tensor]]:
    adapted = acclimate.adapt(net, method, guard=guard)
    for batch in stream:
        yield batch, adapted(batch.images)


@pytest.mark.parametrize("name", ["flood", "stalled-camera"])
def test_under_guard_benign_rows_fare_no_worse_than_under_the_source(name: str, net: nn.Module, own: Dataset) -> None:
    """Within the noise of the rows counted, and by less than half of what they lose without a guard."""
    _, stream = poisoned(net, own, attacks.build(name), corruptions=("gaussian_noise", "gaussian_noise"))
    wrong: dict[str | None, list[float]] = {}
    for method, guard in (("source", None), ("bn", "default"), ("bn", None)):
        label = guard if method == "bn" else "source"
        wrong[label] = [
            float(flag)
            for batch, logits in answers(stream, net, method, guard)
            if batch.segment == ATTACKED
            for flag in (logits.argmax(1) != batch.labels)[batch.labels >= 0]
        ]
    source, guarded, free = (torch.tensor(wrong[label]) for label in ("source", "default", None))
    noise = float((guarded - source).std()) / math.sqrt(len(source))
    lost, saved = float((guarded - source).mean()), float((free - source).mean())
    assert saved > 0.05
    assert lost <= 0.01 + 2 * noise and lost < saved / 2


def test_a_poisoned_tenant_leaves_another_bit_for_bit_alone(net: nn.Module, own: Dataset) -> None:
    """Two adaptations over one source: what B answers does not depend on what A is sent."""
    _, stream = poisoned(net, own, attacks.build("wrong-labels"), size=50)
    mine = [batch.images for batch in open_stream("digits:continual", size=50, batch_size=25, corruptions=("snow",))]
    alone = acclimate.adapt(net, "tent", guard="default")
    expected = [alone(images) for images in mine]
    a, b = (acclimate.adapt(net, "tent", guard="default") for _ in "ab")
    for batch, images, answer in zip(stream, mine, expected, strict=False):
        a(batch.images)
        assert torch.equal(b(images), answer)
