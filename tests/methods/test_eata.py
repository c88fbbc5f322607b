"""ETA and EATA against float64 oracles and the golden vectors of their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import acclimate
from acclimate.methods.eata import EATA
from acclimate.methods.eta import ETA
from acclimate.methods.rdumb import RDumb
from acclimate.parts.reliability import reliable_and_diverse
from methods.reference import entropy
from methods.selected import NETS, affine, batch_net, exported, nearest, oracle_net, same, uneven, values

GOLDEN = torch.tensor(
    [[2 * math.sin(1.3 * i + 0.7 * c) for c in range(5)] for i in range(4)], dtype=torch.float64
)  # entropies 1.424818 1.186989 0.990377 1.056976
SETTINGS = {"learning_rate": 1e-2, "margin": 0.75, "diversity": 0.97}


def source_images(count: int = 20) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def fisher(net: nn.Module, images: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Batch by batch and tensor by tensor."""
    total, batches = [torch.zeros_like(p) for p in affine(net)], 0
    for start in range(0, len(images), size):
        z = net(images[start : start + size])
        net.zero_grad()
        nn.functional.cross_entropy(z, z.argmax(1)).backward()
        total = [t + p.grad**2 for t, p in zip(total, affine(net), strict=True)]
        batches += 1
    return [t / batches for t in total]


def oracle(net, batches, *, margin, diversity, learning_rate, beta=0.0, optimizer="adam", images=None, size=8):
    """The six steps, row by row; gives the answers and how many rows were chosen."""
    start = values(net)
    weight = fisher(net, images, size) if beta else [torch.zeros_like(p) for p in start]
    opt = {
        "adam": lambda: torch.optim.Adam(affine(net), lr=learning_rate),
        "sgd": lambda: torch.optim.SGD(affine(net), lr=learning_rate, momentum=0.9, nesterov=True),
    }[optimizer]()
    mean, answers, counts = None, [], []
    for x in batches:
        z = net(x)
        answers.append(z.detach().clone())
        limit = margin * math.log(z.shape[1])
        terms, kept = [], []
        for row in z:
            p = row.softmax(0)
            doubt = -(p * p.log()).sum()
            alike = 0.0 if mean is None else float((mean @ p / (mean.norm() * p.norm())).detach())
            if doubt < limit and alike < diversity:
                kept.append(p.detach())
                terms.append(math.exp(limit - float(doubt.detach())) * doubt)
        counts.append(len(kept))
        if kept:
            now = sum(kept) / len(kept)
            mean = now if mean is None else 0.9 * mean + 0.1 * now
            away = sum((f * (p - s) ** 2).sum() for f, p, s in zip(weight, affine(net), start, strict=True))
            opt.zero_grad()
            (sum(terms) / len(terms) + beta * away).backward()
            opt.step()
    return answers, counts


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_eta_equals_the_oracle(kind, optimizer):
    twin, batches = oracle_net(kind), uneven(6)
    answers, counts = oracle(twin, batches, optimizer=optimizer, **SETTINGS)
    adapted = acclimate.adapt(NETS[kind](), ETA(optimizer=optimizer, **SETTINGS))
    for x, expected, count in zip(batches, answers, counts, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
        assert adapted.last.selected == count
    assert nearest(adapted, twin) < 1e-9
    assert len(set(counts)) > 2


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("beta", [0.5, 300.0])
def test_eata_equals_the_oracle(kind, beta):
    twin, batches, images = oracle_net(kind), uneven(6), source_images()
    answers, counts = oracle(twin, batches, beta=beta, images=images, **SETTINGS)
    method = EATA(source=images, batch_size=8, beta=beta, **SETTINGS)
    adapted = acclimate.adapt(NETS[kind](), method)
    for x, expected in zip(batches, answers, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
    assert nearest(adapted, twin) < 1e-9
    free, _ = oracle(oracle_net(kind), batches, **SETTINGS)
    assert not torch.allclose(free[-1], answers[-1], rtol=0, atol=1e-5), "the penalty does something"
    assert sum(counts) > 10


def test_loss_and_penalty_are_noted():
    twin, batches, images = oracle_net("group_norm"), uneven(2), source_images()
    start = values(twin)
    weight = fisher(twin, images, 8)
    adapted = acclimate.adapt(NETS["group_norm"](), EATA(source=images, batch_size=8, beta=7.0, **SETTINGS))
    adapted(batches[0])
    assert adapted.last.values["penalty"] == 0
    assert adapted.last.loss > 0
    oracle(twin, batches[:1], beta=7.0, images=images, **SETTINGS)
    away = sum((f * (p - s) ** 2).sum() for f, p, s in zip(weight, affine(twin), start, strict=True))
    adapted(batches[1])
    assert adapted.last.values["penalty"] == pytest.approx(7.0 * float(away.detach()), rel=1e-5)


def test_golden_weights_and_cosines():
    """Five classes, four rows: weights exp(E0 - H) with E0 = 0.4 ln 1000, and cosines to the mean of the rows."""
    margin = 0.4 * math.log(1000) / math.log(5)
    expected = torch.tensor([3.812495, 4.836122, 5.886876, 5.507586], dtype=torch.float64)
    cosines = [0.700107, 0.855985, 0.810643, 0.615431]
    for row, cosine in enumerate(cosines):
        for diversity, within in ((cosine + 1e-6, True), (cosine - 1e-6, False)):
            state = acclimate.adapt(batch_net(classes=5), ETA()).state
            chosen, weight = reliable_and_diverse(state, GOLDEN, margin, 1.0)
            assert bool(chosen.all()), "no mean yet: all are diverse"
            assert torch.allclose(weight, expected, rtol=0, atol=1e-6)
            assert torch.allclose(state["mean_prediction"], GOLDEN.softmax(1).mean(0))
            chosen, _ = reliable_and_diverse(state, GOLDEN, margin, diversity)
            assert bool(chosen[row]) is within


def test_nothing_is_learned_where_nothing_is_sure():
    for kind in NETS:
        adapted = acclimate.adapt(NETS[kind](), EATA(source=source_images(), margin=0.0))
        before = exported(adapted)
        for x in uneven(3):
            adapted(x)
            assert not adapted.last.updated
            assert "sure and diverse" in adapted.last.reason
        assert adapted.state.batches == 3
        assert same(exported(adapted), before)


def test_eta_does_not_read_the_limit_as_inclusive():
    """Entropy of exactly E0 is not sure: uniform answers under margin 1."""
    state = acclimate.adapt(batch_net(), ETA()).state
    chosen, _ = reliable_and_diverse(state, torch.zeros(3, 4, dtype=torch.float64), 1.0, 1.0)
    assert not chosen.any()


def test_rdumb_is_eta_between_resets():
    rdumb = acclimate.adapt(batch_net(), RDumb(reset_every=3, **SETTINGS))
    eta = acclimate.adapt(batch_net(), ETA(**SETTINGS))
    for number, x in enumerate(uneven(6)):
        if number == 3:
            eta.reset()
        assert torch.equal(rdumb(x), eta(x))


def test_fisher_forms_of_the_source_agree():
    """One tensor, its batches in a list, and a loader with labels."""
    images = source_images(16)
    data = torch.utils.data.TensorDataset(images, torch.zeros(16, dtype=torch.int64))
    forms = (images, list(images.split(8)), torch.utils.data.DataLoader(data, batch_size=8))
    found = [acclimate.adapt(batch_net(), EATA(source=source, batch_size=8)).state for source in forms]
    for name in found[0].weights:
        assert torch.equal(found[0][f"fisher.{name}"], found[1][f"fisher.{name}"])
        assert torch.equal(found[0][f"fisher.{name}"], found[2][f"fisher.{name}"])


def test_eata_without_source_images():
    with pytest.raises(ValueError, match=r"EATA\(source=images\).*choose eta"):
        acclimate.adapt(batch_net(), "eata")


@pytest.mark.parametrize("source", [[], iter(()), [torch.zeros(3)], ["images"], torch.zeros(0, 3, 8, 8)])
def test_eata_with_a_source_that_is_none(source):
    with pytest.raises(ValueError, match="source"):
        acclimate.adapt(batch_net(), EATA(source=source))


def test_eata_with_broken_source_images():
    with pytest.raises(ValueError, match="not finite"):
        acclimate.adapt(batch_net(), EATA(source=source_images().fill_(float("nan"))))


def test_eata_resumes_without_images(tmp_path):
    """Loaded by its file alone it continues exactly, and a reset gives what a new adaptation with images is."""
    net, method, batches = batch_net(), EATA(source=source_images(), beta=50.0, **SETTINGS), uneven(5)
    adapted = acclimate.adapt(net, method)
    for x in batches[:3]:
        adapted(x)
    adapted.save(tmp_path / "state")
    assert "source" not in method.config()
    loaded = acclimate.load(batch_net(), tmp_path / "state")
    for x in batches[3:]:
        assert torch.equal(loaded(x), adapted(x))
    assert same(exported(loaded), exported(adapted))
    fresh = acclimate.adapt(batch_net(), method)
    for each in (loaded, adapted):
        each.reset()
        assert same(exported(each), exported(fresh))
    for x in batches:
        assert torch.equal(loaded(x), fresh(x))


def test_measuring_the_source_leaves_no_trace():
    """No weight, statistic or counter has moved when the stream begins, whatever the normalisation."""
    for normalization in ("batch", "ema", "source"):
        measured = acclimate.adapt(batch_net(), EATA(source=source_images(), normalization=normalization))
        plain = acclimate.adapt(batch_net(), ETA(normalization=normalization))
        found = {name: t for name, t in exported(measured).items() if ".fisher." not in name}
        assert same(found, exported(plain))
        assert torch.equal(measured(uneven(1)[0]), plain(uneven(1)[0]))


def test_published_presets():
    rows = [EATA.preset(name) for name in ("cifar10", "cifar100", "imagenet")]
    assert [p.diversity for p in rows] == [0.4, 0.1, 0.05]
    assert [p.beta for p in rows] == [1, 1, 2000]
    assert [p.learning_rate for p in rows] == [1e-3, 1e-3, 2.5e-4]
    assert {p.margin for p in rows} == {0.4}
    assert {p.samples for p in rows} == {2000}
    assert [ETA.preset(name).diversity for name in ETA.presets] == [0.4, 0.1, 0.05]


@pytest.mark.parametrize(
    "options", [{"margin": 1.5}, {"diversity": -1}, {"beta": -1}, {"samples": 0}, {"batch_size": 0}]
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        EATA(**options)


def test_class_count_is_held_to():
    with pytest.raises(ValueError, match="classes=4"):
        acclimate.adapt(batch_net(), ETA(classes=7))(uneven(1)[0])
    assert entropy(GOLDEN).tolist() == pytest.approx([1.424818, 1.186989, 0.990377, 1.056976], abs=1e-6)
