"""CoTTA against a float64 oracle of its specification, and what can be derived about its parts."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.methods.cotta import CoTTA, gate_threshold
from acclimate.parts import mean_teacher
from acclimate.parts.restore import scattered
from methods.reference import by_batch, small_net, stream

OPTIONS = {
    "learning_rate": 1e-2,
    "optimizer": "adam",
    "momentum": 0.9,
    "restoration": 0.0,
    "copies": 5,
    "symmetric": False,
}
SWITCHES = [
    {},
    {"restoration": 0.2},
    {"symmetric": True, "restoration": 0.05},
    {"optimizer": "sgd", "learning_rate": 0.05},
    {"momentum": 0.0, "restoration": 0.5},
    {"momentum": 1.0},
]


def shaded(x: Tensor, generator: torch.Generator) -> Tensor:
    """A view that tells by its brightness which numbers were drawn for it."""
    return x * (0.4 + torch.rand(1, generator=generator, dtype=x.dtype))


def generator_like(name: str) -> torch.Generator:
    adapted = acclimate.adapt(small_net(), CoTTA())
    return torch.Generator().set_state(adapted.state.generator(name).get_state())


def cross(a: Tensor, b: Tensor) -> Tensor:
    return -(a.softmax(1) * torch.log(b.softmax(1))).sum(1).mean()


def anchor_confidence(x: Tensor) -> float:
    return float(by_batch(small_net())(x).detach().softmax(1).amax(1).mean())


def oracle(batches: list[Tensor], threshold: float, **o) -> tuple[list[Tensor], nn.Module, nn.Module, list[bool]]:
    """Steps 1 to 8 of the specification on three deep copies, views one after another, masks dense."""
    student, teacher, anchor = (by_batch(small_net()) for _ in range(3))
    source = copy.deepcopy(anchor)
    views, restoring = generator_like("views"), generator_like("restoration")
    if o["optimizer"] == "adam":
        opt = torch.optim.Adam(student.parameters(), lr=o["learning_rate"])
    else:
        opt = torch.optim.SGD(student.parameters(), lr=o["learning_rate"], momentum=0.9, nesterov=True)
    answers, gates = [], []
    for x in batches:
        zs = student(x)
        with torch.no_grad():
            gates.append(bool(anchor(x).softmax(1).max(1).values.mean() < threshold))
            shades = [shaded(x, views) for _ in range(o["copies"] if gates[-1] else 0)]
            zt = sum(map(teacher, shades)) / o["copies"] if shades else teacher(x)
        loss = cross(zt, zs)
        if o["symmetric"]:
            loss = 0.5 * loss + 0.5 * cross(zs, zt)
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
                t.copy_(o["momentum"] * t + (1 - o["momentum"]) * s)
            total = sum(p.numel() for p in student.parameters())
            mask = torch.zeros(total, dtype=torch.bool)
            mask[scattered(total, o["restoration"], restoring)] = True
            sizes = [p.numel() for p in student.parameters()]
            for s, s0, m in zip(student.parameters(), source.parameters(), mask.split(sizes), strict=True):
                s.copy_(torch.where(m.view(s.shape), s0, s))
        answers.append(zt)
    return answers, teacher, student, gates


@pytest.mark.parametrize("rows_at_once", [1024, 24])
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()) or "default")
def test_equals_the_oracle(switch, rows_at_once):
    """Batches on which the gate opens and batches on which it stays closed, in turn.

    The first must open it: as long as teacher and student agree the gradient is rounding alone, which Adam enlarges.
    """
    unsure = sorted(stream(6), key=anchor_confidence)
    batches = [x for pair in zip(unsure[:3], unsure[3:], strict=True) for x in pair]
    options, threshold = {**OPTIONS, **switch}, anchor_confidence(unsure[3])
    answers, teacher, student, gates = oracle(batches, threshold, **options)
    assert gates == [True, False] * 3
    method = CoTTA(**options, threshold=threshold, views=shaded, rows_at_once=rows_at_once)
    adapted = acclimate.adapt(small_net(), method)
    for x, expected, opened in zip(batches, answers, gates, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
        assert adapted.last.values["views"] == (5 if opened else 0)
        assert adapted.last.values["confidence"] == pytest.approx(anchor_confidence(x))
        assert adapted.last.forwards == (2 + 5 if opened else 3)
        assert adapted.last.backwards == 1
    trained = dict(zip(adapted.state.weights, adapted.state.twins["student"].values(), strict=True))
    expected = dict(teacher.named_parameters()), dict(student.named_parameters())
    assert adapted.state.weights.keys() == expected[0].keys()
    for name, weight in adapted.state.weights.items():
        assert torch.allclose(weight, expected[0][name], rtol=0, atol=1e-9), name
        assert torch.allclose(trained[name], expected[1][name], rtol=0, atol=1e-9), name


def test_the_first_answer_is_that_of_batch_statistics():
    x = stream(1)[0]
    assert torch.equal(acclimate.adapt(small_net(), CoTTA(threshold=0.0))(x), acclimate.adapt(small_net(), "bn")(x))


@pytest.mark.parametrize(("threshold", "made"), [(0.0, 0), (1.0, 4)])
def test_views_are_made_only_where_the_gate_opens(threshold, made):
    calls: list[int] = []
    method = CoTTA(threshold=threshold, copies=4, views=lambda x, g: calls.append(len(x)) or x)
    adapted = acclimate.adapt(small_net(), method)
    rows: list[int] = []
    adapted.module.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    for number, x in enumerate(stream(3), 1):
        adapted(x)
        assert calls == [12] * made * number
        assert sum(rows) == number * 12 * (2 + max(made, 1))


def test_the_gate_judges_the_batch_not_the_image():
    """A threshold that half of the images pass: all of the batch gets views, or none of it."""
    x = stream(1)[0]
    confidence = by_batch(small_net())(x).detach().softmax(1).amax(1)
    mean = float(confidence.mean())
    assert 2 <= int((confidence > mean).sum()) <= 10
    for threshold, views in ((mean + 1e-6, 4), (mean - 1e-6, 0)):
        adapted = acclimate.adapt(small_net(), CoTTA(threshold=threshold, copies=4))
        adapted(x)
        assert adapted.last.values["views"] == views


def test_the_teacher_follows_the_student_before_restoration(monkeypatch):
    """With everything restored the student is the source again, and yet the teacher has moved."""
    adapted = acclimate.adapt(small_net(), CoTTA(threshold=0.0, restoration=1.0, momentum=0.5))
    restored: list[float] = []
    original = mean_teacher.restore
    monkeypatch.setattr(
        mean_teacher,
        "restore",
        lambda targets, sources, *rest: (
            restored.append(max(float((t - s).abs().max()) for t, s in zip(targets, sources, strict=True)))
            or original(targets, sources, *rest)
        ),
    )
    adapted(stream(1)[0])
    assert restored[0] > 0
    for pupil, source in zip(adapted.state.twins["student"].values(), adapted.state.sources(), strict=True):
        assert torch.equal(pupil, source)
    assert adapted.last.distance > 0


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_the_restored_share_is_binomial(rate):
    """Elements that moved by Adam, each by about its rate, and are back at their source value."""

    def returned(restoration: float) -> tuple[int, int]:
        method = CoTTA(threshold=1.0, copies=1, restoration=restoration, learning_rate=1e-2)
        back = total = 0
        for seed in range(10):
            adapted = acclimate.adapt(small_net(), method, seed=seed)
            adapted(stream(1)[0])
            for name, source in zip(adapted.state.weights, adapted.state.sources(), strict=True):
                if name != "3.bias":  # which batch statistics take out again: it hardly moves
                    back += int((adapted.state.twins["student"][name] == source).sum())
                    total += source.numel()
        return back, total

    assert returned(0.0)[0] == 0
    back, total = returned(rate)
    assert abs(back - total * rate) < 4 * math.sqrt(total * rate * (1 - rate))


def test_moments_are_not_restored():
    adapted = acclimate.adapt(small_net(), CoTTA(threshold=0.0, restoration=1.0))
    adapted(stream(1)[0])
    moments = [t for path, t in adapted.state.table.optimizers["optimizer"].tensors() if path.endswith("exp_avg")]
    assert all(bool(t.any()) for t in moments)


def test_frozen_and_merged_answers_are_the_teachers():
    adapted = acclimate.adapt(small_net(), CoTTA(momentum=0.5, copies=2, learning_rate=1e-2, threshold=1.0))
    batches = stream(3)
    for x in batches:
        adapted(x)
    teacher = by_batch(small_net())
    teacher.load_state_dict(dict(adapted.state.weights), strict=False)
    with adapted.frozen(), torch.no_grad():
        assert torch.allclose(adapted(batches[0]), teacher(batches[0]), rtol=0, atol=1e-12)
        assert torch.allclose(adapted.merged()(batches[0]), teacher(batches[0]), rtol=0, atol=1e-12)


def test_every_parameter_adapts():
    net = small_net()
    assert list(acclimate.adapt(net, "cotta").state.weights) == [name for name, _ in net.named_parameters()]


def test_gate_threshold_is_a_low_quantile_of_confidence():
    """Of 101 confidences 0.50, 0.505, ..., 1.00 the 5 % quantile is the sixth: 0.525."""
    p = torch.linspace(0.5, 1 - 1e-9, 101, dtype=torch.float64)
    logits = torch.stack([p.log(), (1 - p).log()], 1)[torch.randperm(101, generator=torch.Generator().manual_seed(0))]
    assert gate_threshold(logits) == pytest.approx(0.475, abs=1e-6)
    assert gate_threshold(torch.zeros(4, 1000)) == 0.0
    CoTTA(threshold=gate_threshold(logits))


def test_published_presets():
    rows = [CoTTA.preset(name) for name in ("cifar10-c", "cifar100-c", "imagenet-c")]
    assert CoTTA() == rows[0]
    assert [p.learning_rate for p in rows] == [1e-3, 1e-3, 0.01]
    assert [p.optimizer for p in rows] == ["adam", "adam", "sgd"]
    assert [p.restoration for p in rows] == [0.01, 0.01, 0.001]
    assert [p.threshold for p in rows] == [0.92, 0.72, 0.1]
    assert [p.symmetric for p in rows] == [False, False, True]
    assert {(p.momentum, p.copies) for p in rows} == {(0.999, 32)}


def test_what_views_are_not_made_of_is_refused_at_once():
    """Even where the gate would stay closed; with views of one's own anything goes."""
    x = stream(1)[0]
    with pytest.raises(ValueError, match=r"cotta.*\[0, 1\], found values from -2"):
        acclimate.adapt(small_net(), CoTTA(threshold=0.0))(x * 4 - 2)
    dense = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).double()
    with pytest.raises(ValueError, match=r"one answer \[N, C\] each.*\[12, 4, 8, 8\]"):
        acclimate.adapt(dense, CoTTA(threshold=0.0))(x)
    own = CoTTA(copies=2, views=shaded)
    assert acclimate.adapt(dense, own)(x * 4 - 2).shape == (12, 4, 8, 8)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 0},
        {"momentum": 1.1},
        {"restoration": -0.1},
        {"threshold": 2},
        {"copies": 0},
        {"rows_at_once": 0},
    ],
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        CoTTA(**options)


def test_a_gate_that_never_opened_leaves_noise_alone():
    """Teacher and student agree from the start, so the loss is flat: plain descent stays, Adam follows rounding."""
    moved = {}
    for optimizer in ("sgd", "adam"):
        method = CoTTA(threshold=0.0, restoration=0.0, optimizer=optimizer, learning_rate=1e-3)
        adapted = acclimate.adapt(small_net().float(), method)
        adapted(stream(1)[0].float())
        pairs = zip(adapted.state.twins["student"].values(), adapted.state.sources(), strict=True)
        moved[optimizer] = max(float((s - s0).abs().max()) for s, s0 in pairs)
    assert moved["sgd"] < 1e-7 < 1e-4 < moved["adam"]
