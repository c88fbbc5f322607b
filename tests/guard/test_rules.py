"""Each rule against its formula written out: at which batch it acts, and what that does to the state, to the bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from awake import TOUCHY, kept_by, look
from quick import adapt, batch, factory, learned, unguarded, weights
from torch import Tensor

import acclimate
from acclimate.guard.asr import ASRGuard
from acclimate.guard.detectors.detector import detectors
from acclimate.guard.drift import DriftGuard
from acclimate.guard.rdumb import RDumbGuard
from acclimate.guard.recover import RecoverGuard
from acclimate.guard.sar import SARGuard
from acclimate.guard.shift_test import ShiftTest
from acclimate.guard.trust_region import TrustRegion
from acclimate.methods.eta import ETA
from acclimate.methods.rdumb import RDumb
from conformance.tools import assert_same, bits, book, source_answer


def softmax(logits: Tensor) -> np.ndarray:
    powers = np.exp(logits.numpy() - logits.numpy().max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def surprise(p: np.ndarray) -> np.ndarray:
    """Entropy of each row, as a share of ln C."""
    return -(p * np.log(p)).sum(-1) / np.log(p.shape[-1])


def test_sar_forgets_when_the_mean_loss_falls_below_its_share() -> None:
    told, _ = unguarded(8)
    means = list[float]()
    for logits in told:
        loss = float(surprise(softmax(logits)).mean())
        means.append(loss if not means else 0.9 * means[-1] + 0.1 * loss)
    assert means == sorted(means, reverse=True)
    adapted = adapt(SARGuard(recovery=(means[4] + means[5]) / 2))
    for number in range(5):
        assert_same(adapted(batch(number)), told[number], "answers before it acts")
        assert adapted.last.guard.signals["mean_loss"] == pytest.approx(means[number], abs=1e-12)
        assert adapted.last.updated and not adapted.last.guard.reason
    assert_same(adapted(batch(5)), told[5], "the answer of the batch at which it acts")
    assert adapted.last.restarted and adapted.tally["forgotten"] == 1
    assert_same(learned(adapted), learned(adapt(None)), "state after forgetting")
    anew = adapt(None)
    assert_same(adapted(batch(6)), anew(batch(6)), "answers after forgetting")
    assert_same(learned(adapted), learned(anew), "state after forgetting and going on")
    assert adapted.last.guard.signals["mean_loss"] == pytest.approx(float(anew.last.loss) / math.log(5), abs=1e-12)


def test_sar_reads_entropy_where_there_is_no_loss_and_shares_of_ln_c() -> None:
    guard = SARGuard(recovery=0.5)
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert guard.judge(look(logits), kept_by(guard)).signals["mean_loss"] == pytest.approx(
        float(surprise(softmax(logits)).mean()), abs=1e-12
    )
    for loss, forgets in ((0.49, 1.0), (0.51, 0.0)):
        found = guard.judge(look(logits, notes={"loss": loss * math.log(7)}), kept_by(guard))
        assert found.forget == forgets and found.signals["mean_loss"] == pytest.approx(loss)


def test_rdumb_around_eta_is_the_method_rdumb() -> None:
    rule, method = adapt(RDumbGuard(interval=2), ETA(margin=0.95)), adapt(None, RDumb(margin=0.95, reset_every=2))
    for number in range(5):
        assert_same(rule(batch(number)), method(batch(number)), f"answers to batch {number}")
    assert_same(learned(rule), learned(method), "state")
    rule(batch(5))
    assert_same(learned(rule), learned(adapt(None, ETA(margin=0.95))), "state after the third time")
    assert rule.tally["forgotten"] == 3


def test_asr_forgets_the_deepest_share_when_answers_crowd() -> None:
    told, held = unguarded(8)
    level, gaps = 0.0, []
    for number, logits in enumerate(told):
        p = softmax(logits)
        flips = float((logits.argmax(1) != source_answer(factory, batch(number)).argmax(1)).double().mean())
        crowding = 1 - float(surprise(p.mean(0))) + 2 * flips
        level = crowding if not number else level
        gaps.append(crowding - level)
        level = 0.9 * level + 0.1 * crowding
    when = next(number for number in range(1, 8) if gaps[number] > max(gaps[:number]))
    guard = ASRGuard(margin=(gaps[when] + max(gaps[:when])) / 2, flips=2, share=1.0, deepest=0.7, slope=0.1)
    adapted = adapt(guard)
    for number in range(when + 1):
        assert_same(adapted(batch(number)), told[number], f"answers to batch {number}")
        assert adapted.last.guard.signals["gap"] == pytest.approx(gaps[number], abs=1e-6)
    share = min(max(0.7 - 0.1 * gaps[when], 0.1), 0.7)
    names = list(held[0])
    deepest = names[len(names) - round(share * len(names)) :]
    assert 0 < len(deepest) < len(names) and adapted.tally["forgotten"] == 1
    moments = {path: slot.tensor for path, slot in adapted.state.table.entries() if path.startswith("optimizer/state/")}
    for name, weight in weights(adapted).items():
        assert bits(weight) == bits(held[0 if name in deepest else when + 1][name]), name
        assert bits(held[0][name]) != bits(held[when + 1][name])
        assert all(
            bool(tensor.any()) == (name not in deepest)
            for path, tensor in moments.items()
            if path.startswith(f"optimizer/state/{name}/") and tensor.ndim
        )


def test_asr_shares_keep_to_their_range() -> None:
    falling, rising = ASRGuard(deepest=0.5, smallest=0.1, slope=0.5), ASRGuard(deepest=0.3, smallest=0.1, slope=-1)
    assert [falling.forgotten(gap) for gap in (0.2, 0.6, 1.5)] == pytest.approx([0.4, 0.2, 0.1])
    assert [rising.forgotten(gap) for gap in (0.2, 0.5, 1.5)] == pytest.approx([0.5, 0.8, 0.9])


def bets(scores: list[np.ndarray], reference: np.ndarray, alpha: float) -> list[bool]:
    """Verdicts of the test, capital written out gambler by gambler; it forgives losses and begins anew."""
    slack = math.sqrt(math.log(4 / alpha) / (6 * len(reference)))
    stakes = [(sign, 0.95 * 2 ** (-k / 2) / (0.5 + slack)) for sign in (1, -1) for k in range(11)]
    owned, verdicts = [1.0] * len(stakes), []
    for found in scores:
        owned = [1.0] * len(stakes) if verdicts and verdicts[-1] else [max(each, 1.0) for each in owned]
        for score in found:
            rank = ((reference < score).sum() + (reference == score).sum() / 2) / len(reference)
            owned = [
                each * (1 + stake * (sign * (rank - 0.5) - slack))
                for each, (sign, stake) in zip(owned, stakes, strict=True)
            ]
        verdicts.append(sum(owned) / len(owned) >= 2 / alpha)
    return verdicts


def test_betting_adapts_while_the_shift_is_real() -> None:
    """Batches like the beginning, six shifted, and back: nothing is learned before, everything is forgotten after."""
    stream = [batch(n) * (-3 if 14 <= n < 20 else 1) for n in range(30)]
    entropies = [surprise(softmax(source_answer(factory, x))) * math.log(5) for x in stream]
    reference = np.sort(np.concatenate(entropies)[:32])
    verdicts = [False] * 4 + bets(entropies[4:], reference, 0.05)
    first = verdicts.index(True)
    last = max(number for number, verdict in enumerate(verdicts) if verdict)
    over = next(n for n in range(first, 30) if not any(verdicts[n - 3 : n + 1]) and n >= first + 4)
    assert 14 <= first < 20 and first < over, (first, over, last)
    adapted, twin = adapt(ShiftTest(alpha=0.05, calibration=32, patience=32, share=1.0)), adapt(None)
    fresh = learned(adapted)
    for number in range(over + 1):
        answer = adapted(stream[number])
        if first <= number < over:
            assert_same(answer, twin(stream[number]), f"adapted answers to batch {number}")
            assert_same(learned(adapted), learned(twin), f"state after batch {number}")
        else:
            assert_same(answer, source_answer(factory, stream[number]), f"source's answers to batch {number}")
            assert_same(learned(adapted), fresh, f"state after batch {number}")
            assert adapted.last.held == 8
    assert adapted.tally["forgotten"] == 1


def test_betting_against_a_given_reference_needs_no_beginning(tmp_path) -> None:
    """A stream that is shifted from its first batch; and the file holds the reference."""
    scores = torch.cat([torch.from_numpy(surprise(softmax(source_answer(factory, batch(n))))) for n in range(8)])
    guard = ShiftTest(alpha=0.05, share=1.0, reference=scores * math.log(5))
    assert guard.calibration == 64 and "reference" not in guard.config()
    adapted, dark = adapt(guard), [-3 * batch(number) for number in range(4)]
    fresh = book(adapted)
    held = [bool((adapted(x), adapted.last.held)[1]) for x in dark]
    entropies = [surprise(softmax(source_answer(factory, x))) * math.log(5) for x in dark]
    first = bets(entropies, np.sort(scores.numpy() * math.log(5)), 0.05).index(True)
    assert held == [number < first for number in range(4)]
    adapted.save(tmp_path / "state")
    loaded = acclimate.load(factory(), tmp_path / "state")
    assert_same(loaded(dark[0]), adapted(dark[0]), "answers after loading")
    loaded.reset()
    assert_same(book(loaded), fresh, "state after loading and reset")
    with pytest.raises(ValueError, match="reference scores"):
        ShiftTest(reference=torch.zeros(2))


@pytest.mark.parametrize("detector", ["adwin", "page-hinkley"])
def test_drift_asks_the_detector_about_its_signal(detector: str) -> None:
    """Concentration of hand-made answers, over five classes and then over two."""
    draw = torch.Generator().manual_seed(0)
    settings = {"clock": 1, "delta": 0.5} if detector == "adwin" else {"threshold": 0.3}
    built = detectors.build({"name": detector, **settings})
    guard = DriftGuard(detector=built, signal="concentration", action="shrink", lasting=3, kept_step=0.25)
    kept, state, seen = kept_by(guard), built.initial(), list[float]()
    expected = list[bool]()
    for number in range(60):
        logits = 3 * torch.randn(40, 5, generator=draw, dtype=torch.float64)
        logits[:, 2:] -= 20.0 * (number >= 40)
        found = guard.judge(look(logits, batches=number), kept)
        value = 1 - float(surprise(softmax(logits).mean(0)))
        expected.append(built.update(state, value))
        if expected[-1]:
            state.zero_()
        seen.append(found.shrink)
        assert found.signals["concentration"] == pytest.approx(value, abs=1e-6)
    first = expected.index(True)
    assert 40 <= first < 60 and sum(expected) == 1
    assert seen == [0.25 if first <= number < first + 3 else 1.0 for number in range(60)]


def test_drift_signals() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, source = (torch.randn(9, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    given = {"notes": {"loss": 0.3}, "travel": lambda: (0.1, 0.2, 0.3)}
    expected = {
        "entropy": float(surprise(softmax(logits)).mean()),
        "flips": float((logits.argmax(1) != source.argmax(1)).double().mean()),
        "loss": 0.3 / math.log(4),
        "distance": 0.2,
    }
    for signal, value in expected.items():
        guard = DriftGuard(signal=signal)
        found = guard.judge(look(logits, source, **given), kept_by(guard)).signals
        assert found == {signal: pytest.approx(value, abs=1e-6)}


def test_drift_actions() -> None:
    """`TOUCHY` finds a change in the second entropy, and again in every second one."""
    told, held = unguarded(2)
    forgetting = adapt(DriftGuard(detector=TOUCHY, action="forget"))
    recovering = adapt(DriftGuard(detector=TOUCHY, action="recover", lasting=1))
    holding = adapt(DriftGuard(detector=TOUCHY, action="hold", lasting=3))
    shrinking = adapt(DriftGuard(detector=TOUCHY, action="shrink", lasting=1, kept_step=0.25))
    one = adapt(None)
    one(batch(0))
    everyone = (forgetting, recovering, holding, shrinking)
    for adapted in everyone:
        assert_same(adapted(batch(0)), told[0], "answers before it acts")
        assert_same(learned(adapted), learned(one), "state before it acts")
    for adapted in everyone:
        answer = adapted(batch(1))
        expected = source_answer(factory, batch(1)) if adapted is holding else told[1]
        assert_same(answer, expected, "answers as it acts")
    assert_same(learned(forgetting), learned(adapt(None)), "state after forgetting")
    for name, weight in weights(recovering).items():
        assert bits(weight) == bits(held[1][name])
    assert not recovering.state.table.optimizers["optimizer"].optimizer.state, "the optimiser begins anew"
    for number in (2, 3):
        assert_same(holding(batch(number)), source_answer(factory, batch(number)), "held answers")
    assert_same(learned(holding), learned(one), "state after holding")
    assert_same(holding(batch(4)), one(batch(4)), "answers after holding")
    for name, weight in weights(shrinking).items():
        torch.testing.assert_close(weight, held[1][name] + 0.25 * (held[2][name] - held[1][name]), rtol=0, atol=1e-12)
    assert [a.tally["forgotten"] + a.tally["recovered"] for a in everyone] == [1, 1, 0, 0]


@pytest.mark.parametrize("arbiter", [True, False])
def test_recover_goes_back_when_the_guess_falls(arbiter: bool) -> None:
    """Answers that agree with the other model's less and less; `a` and `b` written out."""
    draw = torch.Generator().manual_seed(0)
    guard = RecoverGuard(memory=40.0, drop=0.1, near=0.02)
    kept, seen, acts = kept_by(guard), list[float](), list[tuple[bool, bool]]()
    expected, guess, best = list[tuple[bool, bool]](), None, 0.0
    for number in range(14):
        labels = torch.randint(0, 5, (40,), generator=draw)
        other = torch.where(torch.arange(40) < 4 * max(0, number - 5), (labels + 1) % 5, labels)
        logits, others = (4 * torch.eye(5, dtype=torch.float64)[each] for each in (labels, other))
        p, q = softmax(logits), softmax(others)
        if arbiter:
            value = ((labels == other).double().mean().item() + (p * q).sum(1).mean()) / 2
        else:
            differing = ((labels != other).sum().item() + 0.5) / 41
            value = max(0.0, 1 - differing * float(surprise(p.mean(0))) ** -3)
        guess = value if guess is None else guess + 0.5 * (value - guess)
        best = max(guess, best)
        expected.append((guess < best - 0.1, guess >= best - 0.02))
        found = guard.judge(look(logits, others, others if arbiter else None, batches=number), kept)
        acts.append((found.recover, found.good))
        seen.append(abs(found.signals["guessed_accuracy"] - guess))
        if expected[-1][0]:
            guess, best = None, 0.0
    assert max(seen) < 1e-9 and acts == expected
    assert any(recover for recover, _ in acts[6:]) and not any(recover for recover, _ in acts[:6])


def test_trust_region_keeps_the_share_that_ends_at_the_border() -> None:
    _, held = unguarded(8)
    vectors = [torch.cat([weight.flatten() for weight in each.values()]).numpy() for each in held]
    source, size = vectors[0], np.linalg.norm(vectors[0])
    distances = [np.linalg.norm(each - source) / size for each in vectors]
    radius = (distances[4] + 2 * distances[5]) / 3
    when = next(number for number, distance in enumerate(distances) if distance > radius)
    start, step = vectors[when - 1], vectors[when] - vectors[when - 1]
    roots = np.roots(
        [step @ step, 2 * (start - source) @ step, (start - source) @ (start - source) - (radius * size) ** 2]
    )
    share = float(roots.max())
    assert 0 < share < 1
    adapted = adapt(TrustRegion(radius=radius))
    for number in range(when):
        adapted(batch(number))
        if number < when - 1:
            assert_same(list(weights(adapted).values()), list(held[number + 1].values()), "weights inside")
    found = torch.cat([weight.flatten() for weight in weights(adapted).values()]).numpy()
    np.testing.assert_allclose(found, start + share * step, rtol=0, atol=1e-5)
    assert radius * (1 - 1e-5) < np.linalg.norm(found - source) / size <= radius
    before = weights(adapted)
    for number in range(when, when + 3):
        adapted(batch(number))
        now = torch.cat([weight.flatten() for weight in weights(adapted).values()]).numpy()
        assert np.linalg.norm(now - source) / size <= radius
        if not adapted.last.guard.learns:
            assert_same(list(weights(adapted).values()), list(before.values()), "an undone step")
        before = weights(adapted)
    outside = TrustRegion(radius=0.1)
    assert not outside.judge(look(torch.zeros(2, 2), travel=lambda: (0.2, 0.15, 0.05)), {}).learn
    assert outside.judge(look(torch.zeros(2, 2), travel=lambda: (0.2, 0.05, 0.2)), {}).learn


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: SARGuard(recovery=1.1), "recovery"),
        (lambda: SARGuard(momentum=1.0), "momentum"),
        (lambda: RDumbGuard(interval=0), "interval"),
        (lambda: ASRGuard(deepest=1.0), "forget everything"),
        (lambda: ShiftTest(alpha=0.0), "alpha"),
        (lambda: ShiftTest(calibration=3), "expected at least"),
        (lambda: DriftGuard(signal="mood"), "signal"),
        (lambda: DriftGuard(detector="adwim"), "Did you mean adwin"),
        (lambda: DriftGuard(action="panic"), "action"),
        (lambda: DriftGuard(kept_step=0.0), "kept_step"),
        (lambda: RecoverGuard(drop=0.01, near=0.02), "drop must be above near"),
        (lambda: TrustRegion(radius=0.0), "radius"),
        (lambda: TrustRegion(share=0.0), "share"),
    ],
)
def test_settings_are_checked(make, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()
