"""Groups by first neighbours against a union-find over the same edges, and what they must not depend on."""

from __future__ import annotations

import pytest
import torch

from acclimate.parts.neighbours import GROUPINGS, METRICS, components, first_neighbours, membership, nearest


def by_union_find(neighbours: list[int]) -> list[frozenset[int]]:
    parent = list(range(len(neighbours)))

    def root(place: int) -> int:
        while parent[place] != place:
            place = parent[place]
        return place

    for one, other in enumerate(neighbours):
        parent[root(one)] = root(other)
    return partition([root(place) for place in range(len(neighbours))])


def partition(labels: list[int]) -> list[frozenset[int]]:
    groups: dict[int, set[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(label, set()).add(place)
    return sorted((frozenset(group) for group in groups.values()), key=min)


def by_definition(features: torch.Tensor, metric: str) -> list[int]:
    """Nearest other row, one by one, the lowest index among equals, in Python's floats."""
    rows = features.tolist()
    found = []
    for place, row in enumerate(rows):
        alike = {}
        for other, its in enumerate(rows):
            if other == place:
                continue
            if metric == "cosine":
                size = max(sum(v * v for v in row) ** 0.5, 1e-12) * max(sum(v * v for v in its) ** 0.5, 1e-12)
                alike[other] = sum(a * b for a, b in zip(row, its, strict=True)) / size
            else:
                alike[other] = -(sum((a - b) ** 2 for a, b in zip(row, its, strict=True)) ** 0.5)
        found.append(max(alike, key=lambda other: (alike[other], -other)))
    return found


def features(number: int) -> torch.Tensor:
    """Random rows; every other time few whole numbers, so that most similarities tie, with rows of zeros among them."""
    generator = torch.Generator().manual_seed(number)
    count = int(torch.randint(2, 130, (), generator=generator))
    width = int(torch.randint(1, 20, (), generator=generator))
    if number % 2:
        return torch.randint(-1, 2, (count, width), generator=generator).double()
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("metric", METRICS)
def test_components_are_those_of_union_find(metric):
    """600 inputs for each metric, half of them full of ties: the same partition, two rows at least in each group."""
    for number in range(600):
        neighbours = nearest(features(number), metric)
        assert bool((neighbours != torch.arange(len(neighbours))).all())
        found = partition(components(neighbours).tolist())
        assert found == by_union_find(neighbours.tolist()), f"input {number}"
        assert min(map(len, found)) >= 2


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_the_nearest(metric):
    for number in range(0, 60, 2):
        rows = features(number)
        assert nearest(rows, metric).tolist() == by_definition(rows, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lowest_index(metric):
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert nearest(rows, metric).tolist() == [2, 3, 0, 1, 0]
    assert first_neighbours(rows, metric).tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_rows_does_not_matter(metric):
    for number in range(0, 100, 2):
        rows = features(number)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(number))
        back = {int(old): new for new, old in enumerate(order)}
        moved = partition([int(label) for label in first_neighbours(rows[order], metric)])
        expected = [
            frozenset(back[place] for place in group) for group in partition(first_neighbours(rows, metric).tolist())
        ]
        assert moved == sorted(expected, key=min)


@pytest.mark.parametrize("metric", METRICS)
def test_scale_does_not_matter(metric):
    for number in range(100):
        rows = features(number)
        assert torch.equal(first_neighbours(rows, metric), first_neighbours(2 * rows, metric))


@pytest.mark.parametrize("metric", METRICS)
def test_long_chains_are_one_group(metric):
    """Each row's neighbour is the next one, up to the last pair: as many steps as pointer doubling is for."""
    for count in (2, 3, 64, 65, 129):
        position = torch.tensor(
            [sum(0.9**step for step in range(place)) for place in range(count)], dtype=torch.float64
        )
        angle = position / position.max().clamp_min(1)
        rows = torch.stack([angle.cos(), angle.sin()], 1) if metric == "cosine" else angle[:, None]
        assert first_neighbours(rows, metric).unique().numel() == 1


@pytest.mark.parametrize("metric", METRICS)
def test_one_row_is_its_own_group(metric):
    assert first_neighbours(torch.randn(1, 4), metric).tolist() == [0]


def test_a_row_of_zeros_goes_to_the_lowest_other():
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.1]])
    assert nearest(rows).tolist() == [2, 0, 0]
    assert nearest(torch.zeros(4, 3)).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_ends(metric, bad):
    """Labels stay indices of rows whatever comes."""
    for number in range(0, 60, 2):
        rows = features(number)
        rows[:: max(1, number % 7)] = bad
        labels = first_neighbours(rows, metric)
        assert labels.shape == rows.shape[:1] and 0 <= int(labels.min()) <= int(labels.max()) < len(rows)


def test_unstructured_rows_give_about_a_quarter_as_many_groups():
    """First neighbours in many dimensions: about 0.27 N groups, as measured where this rule was proposed for FIND."""
    generator = torch.Generator().manual_seed(0)
    counts = [first_neighbours(torch.randn(64, 64, generator=generator)).unique().numel() for _ in range(200)]
    assert 0.2 * 64 < sum(counts) / len(counts) < 0.32 * 64


def test_half_precision_around_it_changes_nothing():
    rows = features(0).float()
    expected = first_neighbours(rows)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(first_neighbours(rows), expected)


def test_membership_averages_over_groups():
    labels = torch.tensor([3, 0, 3, 0, 0])
    values = torch.tensor([[1.0], [2.0], [5.0], [4.0], [9.0]], dtype=torch.float64)
    assert (membership(labels, torch.float64) @ values).flatten().tolist() == pytest.approx([3, 5, 3, 5, 5])


def test_the_whole_is_one_group():
    assert GROUPINGS["whole"](features(0), "cosine").unique().tolist() == [0]
