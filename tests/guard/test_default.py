"""The default guard's evidence and decisions against its formula, row by row in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from awake import kept_by, look
from torch import Tensor

import acclimate
from acclimate.guard.default import DefaultGuard
from acclimate.models import load_model
from acclimate.streams import open_stream

SETTINGS = DefaultGuard(memory=10.0, patience=3)
CLASSES, ROWS = 5, 12


def rows(logits: Tensor) -> list[list[float]]:
    return [row.softmax(0).tolist() for row in logits]


def sureness(logits: Tensor) -> float:
    return sum(1 + sum(p * math.log(p) for p in row) / math.log(CLASSES) for row in rows(logits)) / len(logits)


def belief(witness: Tensor, named: Tensor) -> float:
    found = [
        row[max(range(CLASSES), key=other.__getitem__)] for row, other in zip(rows(witness), rows(named), strict=True)
    ]
    return sum(found) / len(found)


class Oracle:
    """What the guard must keep and decide, batch by batch."""

    def __init__(self, *, arbiter: bool) -> None:
        self.usual, self.evidence, self.trusted, self.doubted = [1 / CLASSES] * CLASSES, 0.0, not arbiter, 0
        self.borders = (SETTINGS.trust, SETTINGS.doubt) if arbiter else (-SETTINGS.leeway / 2, -SETTINGS.leeway)

    def gain(self, adapted: Tensor, source: Tensor, arbiter: Tensor | None) -> float:
        if arbiter is None:
            return belief(source, adapted) - belief(source, source)
        seen = rows(arbiter)
        away = [[share - usual for share, usual in zip(row, self.usual, strict=True)] for row in seen]
        pairs = [
            sum(a * b for a, b in zip(away[i], away[j], strict=True))
            for i in range(ROWS)
            for j in range(ROWS)
            if i != j
        ]
        novelty = max(0.0, sum(pairs) / (ROWS * (ROWS - 1)) / (1 - 1 / CLASSES))
        means = [sum(column) / ROWS for column in zip(*seen, strict=True)]
        self.usual = [0.7 * usual + 0.3 * mean for usual, mean in zip(self.usual, means, strict=True)]
        weight = min(1.0, novelty / SETTINGS.clustered)
        penalty = SETTINGS.clustered + max(0.0, sureness(source) - sureness(adapted))
        return belief(arbiter, adapted) - belief(arbiter, source) - weight * penalty

    def judge(self, gain: float) -> tuple[bool, bool, bool]:
        trust, doubt = self.borders
        self.evidence += ROWS / (ROWS + SETTINGS.memory) * (gain - self.evidence)
        self.trusted = self.evidence >= doubt if self.trusted else self.evidence > trust
        learn = self.evidence >= doubt
        self.doubted = 0 if learn else self.doubted + 1
        forget = self.doubted == SETTINGS.patience
        self.doubted *= not forget
        return not self.trusted, learn, forget


def stream(seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Adapted, source and arbiter: of one mind, then the adapted model wrong, then right, then one class at a time."""
    generator = torch.Generator().manual_seed(seed)

    def near(labels: Tensor, sure: float) -> Tensor:
        noise = torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64)
        return noise + sure * torch.nn.functional.one_hot(labels, CLASSES)

    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for number in range(40):
        labels = torch.randint(CLASSES, (ROWS,), generator=generator)
        wrong = (labels + 1) % CLASSES
        if number >= 30:
            labels = torch.full((ROWS,), number % CLASSES)
        adapted, source = (
            (wrong, labels) if 8 <= number < 16 else (labels, wrong) if 16 <= number < 24 else (labels, labels)
        )
        found.append((near(adapted, 6), near(source, 5 if number < 30 else 9), near(labels, 6)))
    return found


@pytest.mark.parametrize("arbiter", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_evidence_and_decisions_follow_the_formula(seed: int, arbiter: bool) -> None:
    kept, oracle, seen = kept_by(SETTINGS), Oracle(arbiter=arbiter), set[tuple[bool, bool, bool]]()
    for adapted, source, third in stream(seed):
        found = SETTINGS.judge(look(adapted, source, third if arbiter else None), kept)
        gain = oracle.gain(adapted, source, third if arbiter else None)
        expected = oracle.judge(gain)
        assert found.signals["gain"] == pytest.approx(gain, abs=1e-9)
        assert found.signals["evidence"] == pytest.approx(oracle.evidence, abs=1e-9)
        assert (found.hold, found.learn, found.forget == 1.0) == expected
        assert bool(found.reason) == (expected != (False, True, False))
        seen.add(expected)
    assert {(False, True, False), (True, False, False), (True, False, True)} <= seen


def test_more_classes_than_are_kept_are_counted_together() -> None:
    guard, generator = DefaultGuard(), torch.Generator().manual_seed(0)
    kept = kept_by(guard)
    logits = 3 * torch.randn(20, 1000, generator=generator)
    found = guard.judge(look(logits, logits, logits), kept)
    assert kept["usual"].shape == (64,) and float(kept["usual"].sum()) == pytest.approx(1)
    assert -guard.clustered <= found.signals["gain"] <= 0


def test_the_source_answers_where_batches_are_of_one_class() -> None:
    """Batch statistics spread one class over all."""
    net = load_model("digits-resnet")
    guarded, free = (acclimate.adapt(net, "bn", guard=guard) for guard in ("default", None))
    wrong = dict.fromkeys(("source", "guarded", "free"), 0)
    shifts = ("jpeg_compression", "gaussian_noise")
    for batch in open_stream("digits:sorted", size=300, batch_size=30, corruptions=shifts):
        with torch.no_grad():
            told = {"source": net(batch.images), "guarded": guarded(batch.images), "free": free(batch.images)}
        for name, logits in told.items():
            wrong[name] += int((logits.argmax(1) != batch.labels).sum())
    assert wrong["guarded"] <= wrong["source"] + 6 and wrong["free"] > wrong["source"] + 60, wrong
