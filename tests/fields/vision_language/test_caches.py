"""Caches against lists: what stays, in which order, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from acclimate.core.state import State
from acclimate.fields.vision_language.caches import Cache

CLASSES, PLACES, WIDTH = 3, 4, 2
LEVELS = (0.5, 0.25, 1.0, 0.25, 0.75, 0.5)
"""Entropies that come again and again, exactly representable: level entries are level."""


def declared(*, details: int = 0, ordered: bool = True, width: int | None = WIDTH) -> tuple[State, Cache]:
    state = State(nn.Identity(), 0, None)
    Cache.declare(state, "cache", CLASSES, PLACES, width, details=details)
    return state, Cache.of(state, "cache", width=WIDTH, ordered=ordered)


def numbered(number: int) -> torch.Tensor:
    """A feature by which an entry is known again."""
    return torch.tensor([float(number), 1.0])


def kept(cache: Cache, row: int) -> list[tuple[float, int]]:
    present = cache.present[row]
    entropies, numbers = cache.entropies[row][present], cache.features[row, :, 0][present]
    return list(zip(entropies.tolist(), map(int, numbers.tolist()), strict=True))


def stream(seed: int, count: int = 200) -> list[tuple[int, float, int]]:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(CLASSES, (count,), generator=draw).tolist()
    levels = torch.randint(len(LEVELS), (count,), generator=draw).tolist()
    entropies = [LEVELS[level] / 2 ** (number // 50) for number, level in enumerate(levels)]
    return list(zip(rows, entropies, range(count), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_ordered_entries_are_those_of_a_sorted_list(seed):
    """Appended, or put in the place of the last one if strictly surer; then sorted, level ones as they came."""
    _, cache = declared()
    lists: list[list[tuple[float, int]]] = [[] for _ in range(CLASSES)]
    refused = 0
    for row, entropy, number in stream(seed):
        own = lists[row]
        expected = len(own) < PLACES or entropy < own[-1][0]
        if expected:
            own[:] = sorted([*own[: PLACES - 1], (entropy, number)], key=lambda entry: entry[0])
        refused += not expected
        assert cache.add(row, numbered(number), entropy) is expected
        for place, known in enumerate(lists):
            assert kept(cache, place) == known
        assert cache.counts.tolist() == [len(known) for known in lists]
    assert refused > 20, "the stream tries what does not get in"


@pytest.mark.parametrize("seed", range(3))
def test_entries_without_order_keep_their_places(seed):
    _, cache = declared(ordered=False)
    slots: list[list[tuple[float, int]]] = [[] for _ in range(CLASSES)]
    for row, entropy, number in stream(seed):
        own = slots[row]
        worst = max(known for known, _ in own) if own else math.inf
        expected = len(own) < PLACES or entropy < worst
        if len(own) < PLACES:
            own.append((entropy, number))
        elif expected:
            own[[known for known, _ in own].index(worst)] = entropy, number
        assert cache.add(row, numbered(number), entropy) is expected
        assert kept(cache, row) == own
        assert int(cache.counts[row]) == len(own) <= PLACES


@pytest.mark.parametrize("ordered", [True, False])
def test_of_level_entries_the_first_stays(ordered):
    _, cache = declared(ordered=ordered)
    for number in range(PLACES):
        assert cache.add(1, numbered(number), 0.5)
    before = kept(cache, 1)
    assert [number for _, number in before] == list(range(PLACES))
    assert not cache.add(1, numbered(9), 0.5)
    assert kept(cache, 1) == before


def test_where_several_are_level_the_last_to_come_gives_way():
    _, cache = declared()
    for number, entropy in enumerate((0.5, 0.25, 0.5, 0.5)):
        cache.add(0, numbered(number), entropy)
    cache.add(0, numbered(4), 0.25)
    assert kept(cache, 0) == [(0.25, 1), (0.25, 4), (0.5, 0), (0.5, 2)]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(ordered, bad):
    state, cache = declared(ordered=ordered, details=1)
    detail = torch.ones(1)
    for filled in range(PLACES + 1):
        before = {name: slot.tensor.clone() for name, slot in state.table.slots.items()}
        assert not cache.add(0, numbered(1), bad, detail)
        assert not cache.add(0, torch.tensor([1.0, bad]), 0.01, detail)
        assert all(torch.equal(slot.tensor, before[name]) for name, slot in state.table.slots.items())
        cache.add(0, numbered(filled), 0.5 - 0.1 * filled, detail)


def test_details_go_with_their_entries():
    _, cache = declared(details=2)
    for row, entropy, number in stream(4, 60):
        cache.add(row, numbered(number), entropy, torch.tensor([number + 0.5, entropy]))
    assert cache.details is not None
    for row in range(CLASSES):
        for place, (entropy, number) in enumerate(kept(cache, row)):
            assert cache.details[row, place].tolist() == pytest.approx([number + 0.5, entropy])


def test_push_drops_the_oldest():
    _, cache = declared(details=1, ordered=False)
    lists: list[list[tuple[float, int]]] = [[] for _ in range(CLASSES)]
    for row, entropy, number in stream(5, 60):
        cache.push(row, numbered(number), entropy, torch.tensor([number + 0.5]))
        lists[row] = [*lists[row], (entropy, number)][-PLACES:]
        assert sorted(kept(cache, row)) == sorted(lists[row])
    assert cache.details is not None
    assert torch.equal(cache.details[..., 0], cache.features[..., 0] + 0.5)


@pytest.mark.parametrize("details", [0, 2])
def test_a_copy_has_more_room_and_leaves_the_original_alone(details):
    state, cache = declared(details=details)
    detail = torch.ones(2) if details else None
    for row, entropy, number in stream(6):
        cache.add(row, numbered(number), entropy, detail)
    before = {name: slot.tensor.clone() for name, slot in state.table.slots.items()}
    copied = cache.copy(1, 2)
    assert kept(copied, 0) == kept(cache, 1)
    for number, entropy in enumerate((0.01, 0.02, 0.03)):
        assert copied.add(0, numbered(1000 + number), entropy, detail)
    assert len(kept(copied, 0)) == PLACES + 2
    assert kept(copied, 0)[:3] == [(pytest.approx(0.01 * (n + 1)), 1000 + n) for n in range(3)]
    assert all(torch.equal(slot.tensor, before[name]) for name, slot in state.table.slots.items())


def test_means_are_over_entries_and_not_over_places():
    _, cache = declared()
    for number in (2, 4):
        cache.add(0, numbered(number), 0.5)
    assert cache.means().tolist() == [[3.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert cache.present.sum(1).tolist() == [2, 0, 0]


def test_an_empty_cache_is_finite_and_a_width_may_come_late():
    """A step whose state is not finite is refused, so that no place may be marked by infinity or NaN."""
    state, cache = declared(details=2)
    assert all(bool(slot.tensor.isfinite().all()) for slot in state.table.slots.values())
    assert not cache.present.any()
    state = State(nn.Identity(), 0, None)
    Cache.declare(state, "late", CLASSES, PLACES, None)
    assert "late.features" not in state
    cache = Cache.of(state, "late", width=5)
    assert cache.features.shape == (CLASSES, PLACES, 5) and "late.features" in state
    assert Cache.of(state, "late", width=5).features is cache.features
