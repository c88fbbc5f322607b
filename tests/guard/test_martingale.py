"""Tests by betting: false alarms as bounded, against the formula written out, and shifts found in time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from acclimate.core.table import Table
from acclimate.guard.martingale import ReferenceMartingale, StreamMartingale, ranks_in_pool

SHARES = [0.95 * 2 ** (-k / 2) for k in range(11)]


def at_most(count: int, trials: int, rate: float) -> bool:
    """Whether so many alarms are no surprise at that rate: less than three standard deviations too many."""
    return count <= trials * rate + 3 * math.sqrt(trials * rate * (1 - rate))


def capital(ranks: list[list[float]], signs: tuple[int, ...], slack: float, restart: bool) -> list[float]:
    """The mean capital of all gamblers after each batch, as products, one rank at a time."""
    gamblers = [(sign, share / (0.5 + slack)) for sign in signs for share in SHARES]
    owned = [1.0] * len(gamblers)
    after = []
    for batch in ranks:
        if restart:
            owned = [max(each, 1.0) for each in owned]
        for rank in batch:
            owned = [
                c * (1 + stake * (sign * (rank - 0.5) - slack))
                for c, (sign, stake) in zip(owned, gamblers, strict=True)
            ]
        after.append(math.fsum(owned) / len(owned))
    return after


@pytest.mark.parametrize(("direction", "signs"), [("both", (1, -1)), ("up", (1,)), ("down", (-1,))])
@pytest.mark.parametrize("restart", [False, True])
def test_capital_against_a_reference_is_the_formula(direction, signs, restart):
    draw = np.random.default_rng(1)
    known, batches = draw.integers(0, 9, 60) / 8, draw.integers(0, 9, (12, 5)) / 8  # with ties
    ranks = [[(np.sum(known < z) + np.sum(known == z) / 2) / 60 for z in batch] for batch in batches]
    slack = math.sqrt(math.log(len(signs) / (1e-9 / 2)) / (6 * 60))
    expected = capital(ranks, signs, slack, restart)
    test = ReferenceMartingale(alpha=1e-9, direction=direction, restart=restart)
    state, reference = test.initial(), test.reference(torch.from_numpy(known))
    assert test.slack(60) == pytest.approx(slack, rel=1e-12)
    for batch, amount in zip(batches, expected, strict=True):
        assert not test.update(state, torch.from_numpy(batch), reference)
        assert test.evidence(state) == pytest.approx(math.log(amount), abs=1e-9)
    assert test.peak(state) == pytest.approx(max(0.0, math.log(max(expected))), abs=1e-9)


def test_capital_of_a_stream_is_the_formula():
    """Ranks in the pool by their definition, from the same draws."""
    test = StreamMartingale(alpha=1e-9, pool=7)
    state, pool, ranks = test.initial(), [], []
    batches = np.random.default_rng(2).integers(0, 9, (10, 6)) / 8
    draw, same = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for batch in batches:
        ties, deaths = torch.rand(2, 6, dtype=torch.float64, generator=same).tolist()
        ranks.append([])
        for z, tie, death in zip(batch, ties, deaths, strict=True):
            alike = pool.count(z) + 1
            ranks[-1].append((sum(x < z for x in pool) + tie * alike) / (len(pool) + 1))
            pool = sorted([*pool, z])
            if len(pool) > 7:
                pool.pop(math.floor(death * 8))
        test.update(state, torch.from_numpy(batch), draw)
        assert test.evidence(state) == pytest.approx(math.log(capital(ranks, (1, -1), 0.0, False)[-1]), abs=1e-9)


def ranks_of(stream: list[float], chances: np.ndarray, reservoir: bool) -> np.ndarray:
    """Ranks in a pool of two; with `reservoir`, a sample of the past in which everyone is as likely to be."""
    if not reservoir:
        return np.array(ranks_in_pool([], stream, chances[0], chances[1], capacity=2))
    pool: list[float] = []
    ranks: list[float] = []
    for seen, (value, tie, death) in enumerate(zip(stream, *chances, strict=True)):
        ranks.append((sum(x < value for x in pool) + tie) / (len(pool) + 1))
        if len(pool) < 2:
            pool.append(value)
        elif death * (seen + 1) < 2:
            pool[int(death * (seen + 1))] = value
    return np.array(ranks)


@pytest.mark.parametrize("reservoir", [False, True])
def test_ranks_in_the_pool_are_independent_and_those_in_a_reservoir_are_not(reservoir):
    """Two successive ranks fall into the nine cells of a 3 x 3 table alike, over 2,000 streams of one distribution."""
    draw = np.random.default_rng(4)
    table = np.zeros((3, 3))
    for _ in range(2000):
        ranks = ranks_of(draw.normal(size=12).tolist(), draw.random((2, 12)), reservoir)
        first, second = (3 * ranks[-2:]).astype(int)
        table[first, second] += 1
    chance = stats.chisquare(table.ravel()).pvalue
    assert chance < 1e-6 if reservoir else chance > 1e-3


def test_a_stream_like_its_reference_is_rarely_called_changed():
    """Ville's bound over references and streams; bets without the slack break it."""
    draw = torch.Generator().manual_seed(5)
    test, trials, alarms, naive = ReferenceMartingale(alpha=0.1), 200, 0, 0
    for _ in range(trials):
        reference, state = test.reference(torch.randn(60, generator=draw)), test.initial()
        stream = torch.randn(10, 200, generator=draw)
        alarms += any(test.update(state, batch, reference) for batch in stream)
        ranks = np.searchsorted(reference.numpy(), stream.flatten().double().numpy()) / 60
        won = [np.log1p(2 * sign * share * (ranks - 0.5)).cumsum() for sign in (1, -1) for share in SHARES]
        naive += np.logaddexp.reduce(won).max() - math.log(22) >= math.log(10)
    assert at_most(alarms, trials, 0.1)
    assert not at_most(naive, trials, 0.1)


@pytest.mark.parametrize("ties", [False, True], ids=["continuous", "ties"])
def test_a_stream_of_one_distribution_is_rarely_called_changed(ties):
    """Looked at after every four scores, with a pool so small that everyone in it has been there before."""
    draw = torch.Generator().manual_seed(6)
    test, trials, alarms = StreamMartingale(alpha=0.2, pool=5), 200, 0
    for _ in range(trials):
        state, stream = test.initial(), torch.randn(25, 4, generator=draw)
        alarms += any(test.update(state, batch.round() if ties else batch, draw) for batch in stream)
    assert at_most(alarms, trials, 0.2)
    assert alarms > 0


def test_false_alarms_of_a_restarting_test_are_far_apart():
    """In the mean at least 1 / alpha updates, over streams that are followed for up to 100."""
    draw = torch.Generator().manual_seed(7)
    test, lengths = StreamMartingale(alpha=0.5, pool=20, restart=True), []
    for _ in range(150):
        state, length = test.initial(), 1
        while not test.update(state, torch.randn(3, generator=draw), draw) and length < 100:
            length += 1
        lengths.append(length)
    assert np.mean(lengths) >= 2
    assert np.mean(np.array(lengths) < 100) > 0.9, "on a stream without end they come"


def test_finds_a_shift_from_a_reference():
    """Half a standard deviation, from 500 scores at alpha 0.01: within 400 scores in nine of ten streams, and the way
    it goes; what goes the other way is not the change that was asked for."""
    draw = torch.Generator().manual_seed(8)
    up, down = ReferenceMartingale(direction="up"), ReferenceMartingale(direction="down")
    found = wrong = 0
    for _ in range(100):
        reference = up.reference(torch.randn(500, generator=draw))
        states = up.initial(), down.initial()
        for batch in 0.5 + torch.randn(8, 50, generator=draw):
            rises, falls = up.update(states[0], batch, reference), down.update(states[1], batch, reference)
        found, wrong = found + rises, wrong + falls
    assert found >= 90
    assert wrong <= 1


def test_finds_a_late_shift_of_a_stream_only_with_restart():
    """One standard deviation after 4,000 scores: within 200 in nine of ten streams."""
    draw = torch.Generator().manual_seed(9)
    found = {True: 0, False: 0}
    for restart in found:
        for _ in range(20):
            test = StreamMartingale(alpha=0.001, restart=restart)
            state = test.initial()
            calm = [test.update(state, batch, draw) for batch in torch.randn(40, 100, generator=draw)]
            after = [test.update(state, batch, draw) for batch in 1 + torch.randn(4, 50, generator=draw)]
            found[restart] += any(after) and not calm[-1]
    assert found[True] >= 18
    assert found[False] <= 5


def test_after_a_verdict():
    """Without restart it stands; with it, the next update is that of a fresh test."""
    draw = torch.Generator().manual_seed(10)
    stays, anew = (ReferenceMartingale(restart=restart) for restart in (False, True))
    reference = stays.reference(torch.rand(300, generator=draw))
    states = stays.initial(), anew.initial()
    assert stays.update(states[0], torch.full((50,), 2.0), reference)
    assert anew.update(states[1], torch.full((50,), 2.0), reference)
    calm = torch.rand(2000, generator=draw)
    assert stays.update(states[0], calm, reference) and not anew.update(states[1], calm, reference)
    assert stays.evidence(states[0]) < stays.limit < stays.peak(states[0])
    fresh = anew.initial()
    anew.update(fresh, calm, reference)
    assert torch.equal(states[1], fresh)


def test_order_is_all_that_counts():
    """Scores on any scale: a monotone map of reference and stream changes no number of the state."""
    draw = torch.Generator().manual_seed(11)
    test, known, stream = ReferenceMartingale(), torch.rand(100, generator=draw), torch.rand(400, generator=draw)
    states = test.initial(), test.initial()
    test.update(states[0], stream, test.reference(known))
    test.update(states[1], stream.double().exp() * 1e6, test.reference(known.double().exp() * 1e6))
    assert torch.equal(*states) and states[0].any()


def test_state_in_a_table():
    """Undone with its generator, a stream's test repeats itself bit for bit."""
    test, table = StreamMartingale(pool=30), Table()
    state = table.declare("real", test.initial(), initial=0.0, kind="memory", merge="first")
    batches = torch.rand(20, 8)
    for batch in batches[:10]:
        test.update(state, batch, table.generator("real"))
    before = table.snapshot()
    results = []
    for _ in range(2):
        table.restore(before)
        for batch in batches[10:]:
            test.update(state, batch, table.generator("real"))
        results.append(state.clone())
    assert torch.equal(*results)
    table.reset()
    assert torch.equal(state, test.initial())


def test_refuses_what_would_make_nonsense():
    test = ReferenceMartingale()
    reference, state = test.reference(torch.rand(50)), test.initial()
    with pytest.raises(ValueError, match="finite"):
        test.update(state, torch.tensor([0.1, math.nan]), reference)
    assert not state.any()
    with pytest.raises(ValueError, match="expected at least 4"):
        test.reference(torch.rand(3))
    assert len(test.reference(torch.rand(4))) == 4
    with pytest.raises(ValueError, match="expected"):
        StreamMartingale(pool=10).update(StreamMartingale(pool=11).initial(), 0.5, torch.Generator())
    for settings in ({"alpha": 0.0}, {"alpha": 1.0}, {"direction": "sideways"}, {"pool": 0}):
        with pytest.raises(ValueError):
            StreamMartingale(**settings)
