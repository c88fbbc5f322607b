"""Distances, targets and losses of NCTTA: published golden vectors, literal oracles in float64, finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from acclimate.core.state import State
from acclimate.functional import entropy
from acclimate.methods.nctta import NCTTA
from acclimate.parts.alignment import alignment_distance, alignment_loss, directions, hybrid_target

CLASSES, WIDTH, ROWS = 6, 5, 4
LITERAL = 0.4 * math.log(1000)
GOLDEN = {
    "H": [1.249142, 1.406163, 1.707760, 1.380334],
    "T": [[0, 1, 2], [1, 0, 2], [2, 3, 1], [4, 5, 3]],
    "q": [
        [0.532961, 0.382189, 0.084850],
        [0.645617, 0.230550, 0.123834],
        [0.558626, 0.324080, 0.117295],
        [0.548681, 0.344045, 0.107274],
    ],
    "g": [
        [0.564203, 0.378792, 0.057005],
        [0.736495, 0.199804, 0.063700],
        [0.634932, 0.306847, 0.058221],
        [0.607036, 0.335351, 0.057613],
    ],
    "c": [
        [0.460061, 0.390117, 0.149822],
        [0.433567, 0.302288, 0.264145],
        [0.380576, 0.364290, 0.255133],
        [0.412521, 0.364330, 0.223149],
    ],
    "N": [1.262606, 1.319879, 1.418932, 1.377110],
    "d": [0.651480, 0.534104, 0.397447, 0.798579],
    "lambda": [7.572281, 7.143519, 6.450911, 6.765892],
    "with gradient": [3.516946, 2.055466, 2.340516, 2.906027],
    "detached": [3.123137, 2.482981, 1.726424, 3.092599],
    "h0": [1.935907, -1.453407, -1.377576, 1.302925, 1.706885],
    "loss": 56.790107,
}
ROUNDING = 6e-7
"""Half of the last published digit, and a little."""


def toy() -> tuple[Tensor, Tensor, Tensor]:
    """Features, weight and bias of the golden vectors."""
    w = [[math.sin(0.7 * j + 1.3 * d + 0.2) for d in range(WIDTH)] for j in range(CLASSES)]
    h = [[math.cos(0.9 * i + 0.6 * d) + 0.3 * i for d in range(WIDTH)] for i in range(ROWS)]
    b = [0.05 * j for j in range(CLASSES)]
    return tuple(torch.tensor(values, dtype=torch.float64) for values in (h, w, b))


class Books(State):
    """Only what the loss notes."""

    def __init__(self) -> None:
        self.notes = {}


def golden_method(**settings: object) -> NCTTA:
    base = {"entropy_threshold": LITERAL, "margin_threshold": LITERAL, "top_k": 3, "alpha": 0.3}
    return NCTTA(**{**base, **settings})


def loss_of(h: Tensor, w: Tensor, b: Tensor, method: NCTTA) -> tuple[Tensor, dict[str, Tensor]]:
    books, logits = Books(), h @ w.T + b
    loss = method._loss(books, directions(h, w), logits, torch.ones(len(h), dtype=torch.bool))
    return loss, books.notes


def close(found: Tensor, expected: object) -> bool:
    return bool(torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=ROUNDING))


def test_golden_scores():
    h, w, b = toy()
    p, towards = (h @ w.T + b).softmax(1), directions(h, w)
    for alpha, name in ((0.3, "q"), (0.0, "g"), (1.0, "c")):
        index, target = hybrid_target(towards.cosines, p, top_k=3, alpha=alpha)
        assert index.tolist() == GOLDEN["T"]
        assert close(target, GOLDEN[name])
    index, target = hybrid_target(towards.cosines, p, top_k=3, alpha=0.3)
    assert close(alignment_loss(towards, index, target), GOLDEN["N"])
    assert close(alignment_distance(towards, p.argmax(1)), GOLDEN["d"])
    assert close(entropy(h @ w.T + b), GOLDEN["H"])


def test_golden_loss():
    loss, notes = loss_of(*toy(), golden_method())
    assert close(loss, GOLDEN["loss"])
    assert close(notes["weight"], sum(GOLDEN["lambda"]) / ROWS)
    assert close(notes["p_fca"], sum(GOLDEN["d"]) / ROWS)
    assert close(notes["alignment"], sum(GOLDEN["N"]) / ROWS)


@pytest.mark.parametrize(("detach", "name"), [(False, "with gradient"), (True, "detached")])
def test_golden_gradients(detach, name):
    h, w, b = toy()
    h.requires_grad_(True)
    (slope,) = torch.autograd.grad(loss_of(h, w, b, golden_method(detach_target=detach))[0], h)
    assert close(slope.norm(dim=1), GOLDEN[name])
    if not detach:
        assert close(slope[0], GOLDEN["h0"])


def unit(v: Tensor) -> Tensor:
    return v / v.square().sum().sqrt()


def literal(h, w, b, *, k, alpha, held, kind="infonce", metric="cos", candidates="prob", variant="code", tau=1.0):
    """One row's terms, class by class; `held` are shares to use as constants, or None. Gives N, T and the shares.

    The constants of 1e-8 are the released code's.
    """
    p = (w @ h + b).softmax(0)
    s = [unit(h) @ unit(row) for row in w]
    a = [1 - x if metric == "cos" else (2 - 2 * x).sqrt() for x in s]
    everywhere = [(1 - alpha) * (-a[j]).exp() / sum((-x).exp() for x in a) + alpha * p[j] for j in range(len(w))]
    order = everywhere if candidates == "hybrid" else p
    chosen = sorted(range(len(w)), key=lambda j: -float(order[j].detach()))[:k]
    if variant == "paper":
        q = [everywhere[j] for j in chosen]
    else:
        mean = sum(a[j] for j in chosen) / k
        deviation = (sum((a[j] - mean) ** 2 for j in chosen) / k).sqrt() if k > 1 else 0.0
        t = [(a[j] - mean) / (deviation + 1e-8) for j in chosen]
        g = [(-x).exp() / sum((-y).exp() for y in t) for x in t]
        c = [(p[j] + 1e-8) / sum(p[i] + 1e-8 for i in chosen) for j in chosen]
        q = [(1 - alpha) * x + alpha * y for x, y in zip(g, c, strict=True)]
    q = [(x + 1e-8) / sum(y + 1e-8 for y in q) for x in q] if held is None else held
    if kind == "infonce":
        value = -(
            sum(x * (s[j] / tau).exp() for x, j in zip(q, chosen, strict=True)) / sum((x / tau).exp() for x in s)
        ).log()
    else:
        m = unit(sum(x * unit(w[j]) for x, j in zip(q, chosen, strict=True)))
        rival = max([s[j] for j in range(len(w)) if j not in chosen], key=float, default=None)
        if kind == "cosine_l2":
            value = (unit(h) - m).square().sum()
        elif kind == "margin_triplet":
            value = (0.2 - (unit(h) @ m - rival)).clamp_min(0)
        else:
            value = (0.2 - (sum(x * s[j] for x, j in zip(q, chosen, strict=True)) - rival)).clamp_min(0)
    return value, chosen, q


SETTINGS = [
    {},
    {"metric": "euclid"},
    {"candidates": "hybrid"},
    {"variant": "paper"},
    {"variant": "paper", "candidates": "hybrid", "metric": "euclid"},
    {"tau": 0.3},
    {"kind": "cosine_l2"},
    {"kind": "margin_triplet"},
    {"kind": "hinge_cos"},
]


def names(settings: dict[str, object]) -> str:
    return "-".join(map(str, settings.values())) or "default"


@pytest.mark.parametrize("settings", SETTINGS, ids=names)
@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (2, 0.3), (4, 0.0), (3, 1.0), (5, 0.7)])
def test_every_form_equals_its_formula(settings, k, alpha):
    generator = torch.Generator().manual_seed(k)
    h, w = (torch.randn(n, 7, generator=generator, dtype=torch.float64) for n in (5, CLASSES))
    b, towards = torch.linspace(-1, 1, CLASSES, dtype=torch.float64), directions(h, w)
    target = {name: settings[name] for name in ("metric", "candidates", "variant") if name in settings}
    index, shares = hybrid_target(towards.cosines, (h @ w.T + b).softmax(1), top_k=k, alpha=alpha, **target)
    loss = alignment_loss(
        towards, index, shares, kind=settings.get("kind", "infonce"), temperature=settings.get("tau", 1.0)
    )
    for row in range(5):
        value, chosen, q = literal(h[row], w, b, k=k, alpha=alpha, held=None, **settings)
        assert index[row].tolist() == chosen
        assert torch.allclose(shares[row], torch.stack(q), rtol=0, atol=1e-12)
        assert float(loss[row]) == pytest.approx(float(value), abs=1e-12)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=names)
def test_gradients_are_finite_differences(settings, detach):
    """Of the weighted loss with weights held; where the target is detached its shares are held too."""
    h, w, b = toy()
    names = {"kind": "alignment", "tau": "temperature"}
    method = golden_method(detach_target=detach, **{names.get(key, key): value for key, value in settings.items()})
    parameter = h.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(loss_of(parameter, w, b, method)[0], parameter)
    base = [literal(row, w, b, k=3, alpha=0.3, held=None, **settings) for row in h]
    logits = h @ w.T + b
    doubt = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    near = torch.stack([(unit(row) - unit(w[int(z.argmax())])).norm() for row, z in zip(h, logits, strict=True)])
    held = (LITERAL - doubt).exp() + 5 / (1 + near)

    def loss(moved: Tensor, row: int) -> float:
        p = (w @ moved + b).softmax(0)
        shares = base[row][2] if detach else None
        value, chosen, _ = literal(moved, w, b, k=3, alpha=0.3, held=shares, **settings)
        assert chosen == base[row][1]
        return float(held[row] * (-(p * p.log()).sum() + 5 * value)) / ROWS

    step = 1e-6
    for row in range(ROWS):
        for place in range(WIDTH):
            aside = torch.zeros(WIDTH, dtype=torch.float64)
            aside[place] = step
            expected = (loss(h[row] + aside, row) - loss(h[row] - aside, row)) / (2 * step)
            assert float(slope[row, place]) == pytest.approx(expected, abs=1e-6, rel=1e-5)


def test_lengths_do_not_count():
    """Any positive scale of a row of the classifier or of a feature leaves cosines, distances, shares and loss."""
    h, w, b = toy()
    p = (h @ w.T + b).softmax(1)
    scaled = directions(h * torch.tensor([[0.1], [3.0], [1.0], [70.0]]), w * torch.linspace(0.2, 9, CLASSES)[:, None])
    plain = directions(h, w)
    found = []
    for towards in (plain, scaled):
        index, target = hybrid_target(towards.cosines, p, top_k=3, alpha=0.3)
        loss, distance = alignment_loss(towards, index, target), alignment_distance(towards, p.argmax(1))
        found.append(torch.cat([towards.cosines.flatten(), target.flatten(), loss, distance]))
    assert torch.allclose(*found, rtol=0, atol=1e-12)


def test_one_candidate_by_confidence_is_a_pseudo_label():
    h, w, b = toy()
    towards, p = directions(h, w), (h @ w.T + b).softmax(1)
    index, target = hybrid_target(towards.cosines, p, top_k=1, alpha=1.0)
    expected = -towards.cosines.log_softmax(1).gather(1, p.argmax(1, keepdim=True))[:, 0]
    assert torch.equal(target, torch.ones_like(target))
    assert torch.allclose(alignment_loss(towards, index, target), expected, rtol=0, atol=1e-12)


def test_of_two_candidates_distances_only_tell_the_order():
    h, w, b = toy()
    towards, p = directions(h, w), (h @ w.T + b).softmax(1)
    index, target = hybrid_target(towards.cosines, p, top_k=2, alpha=0.0)
    nearer = towards.cosines.gather(1, index)
    first = torch.tensor(1 / (1 + math.exp(-2)), dtype=torch.float64)
    expected = torch.where(nearer >= nearer.amax(1, keepdim=True), first, 1 - first)
    assert torch.allclose(target, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_equal_distances_have_a_finite_gradient(k):
    """One candidate, or rows of the classifier that coincide: nothing to standardise."""
    h, w, b = toy()
    w[:] = w[0]
    h.requires_grad_(True)
    (slope,) = torch.autograd.grad(loss_of(h, w, b, golden_method(top_k=k))[0], h)
    assert slope.isfinite().all()


def test_more_candidates_than_classes_are_all_of_them():
    h, w, b = toy()
    p, cosines = (h @ w.T + b).softmax(1), directions(h, w).cosines
    index, target = hybrid_target(cosines, p, top_k=10, alpha=0.3)
    assert index.sort(1).values.tolist() == [list(range(CLASSES))] * ROWS
    assert torch.equal(target, hybrid_target(cosines, p, top_k=CLASSES, alpha=0.3)[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_is_computed_in_float32(dtype):
    h, w, _ = toy()
    towards = directions(h.to(dtype), w.to(dtype))
    assert towards.cosines.dtype == torch.float32
    exact = directions(h.to(dtype).double(), w.to(dtype).double())
    assert torch.allclose(towards.cosines.double(), exact.cosines, rtol=0, atol=1e-6)
