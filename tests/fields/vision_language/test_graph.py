"""Cliques against networkx, thresholds against brute force, hyper-classes against their definition."""

from __future__ import annotations

import itertools

import networkx
import numpy as np
import pytest
import torch

from acclimate.fields.vision_language.graph.adjacency import by_degree, by_level, shared
from acclimate.fields.vision_language.graph.cliques import TooMany, bits, maximal_cliques
from acclimate.fields.vision_language.graph.hyper_classes import HyperClasses
from acclimate.fields.vision_language.graph.keeping import Rule

EDGES = ("01", "02", "03", "12", "13", "23", "34", "35", "45", "56")


def graph(nodes: int, edges: list[tuple[int, int]]) -> np.ndarray:
    joined = np.zeros((nodes, nodes), dtype=bool)
    for a, b in edges:
        joined[a, b] = joined[b, a] = True
    return joined


def drawn(nodes: int, share: float, seed: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).random((nodes, nodes)) < share, 1)
    return upper | upper.T


WORKED = graph(8, [(int(a), int(b)) for a, b in EDGES])


def test_the_worked_example():
    """Nodes 0 to 3 all joined, a triangle, a tail, and one alone."""
    rows = bits(WORKED)
    assert maximal_cliques(rows) == [(0, 1, 2, 3), (3, 4, 5), (5, 6), (7,)]
    assert maximal_cliques(bits(shared(WORKED, 1))) == [(0, 1, 2, 3), (3, 4, 5), (6,), (7,)]
    assert maximal_cliques(bits(shared(WORKED, 2))) == [(0, 1, 2, 3), (4,), (5,), (6,), (7,)]
    assert np.array_equal(shared(WORKED, 0), WORKED)


@pytest.mark.parametrize(
    ("nodes", "share"), [(1, 0.0), (7, 1.0), (30, 0.2), (70, 0.08), (40, 0.5), (20, 0.9), (90, 0.0)]
)
def test_all_maximal_cliques_and_no_others(nodes, share):
    for seed in range(4):
        joined = drawn(nodes, share, seed)
        expected = sorted(tuple(sorted(each)) for each in networkx.find_cliques(networkx.from_numpy_array(joined)))
        found = maximal_cliques(bits(joined))
        assert found == expected
        assert set(itertools.chain(*found)) == set(range(nodes))


def test_too_many_cliques_are_refused():
    """n triples of which no two nodes are joined have 3^n maximal cliques."""
    groups = np.arange(12) // 3
    rows = bits(groups[:, None] != groups)
    assert len(maximal_cliques(rows, 81)) == 81
    with pytest.raises(TooMany, match="more than 80 maximal cliques among 12 nodes"):
        maximal_cliques(rows, 80)


def test_a_clique_may_be_larger_than_calls_are_nested():
    nodes = 1100
    rows = [((1 << nodes) - 1) ^ (1 << node) for node in range(nodes)]
    assert maximal_cliques(rows) == [tuple(range(nodes))]
    rows[0] ^= 2  # two nodes that are not joined to one another
    rows[1] ^= 1
    assert maximal_cliques(rows) == [(0, *range(2, nodes)), tuple(range(1, nodes))]


@pytest.mark.parametrize("degree", [0.5, 1, 4, 5.3, 40])
def test_the_mean_degree_is_exact(degree):
    nodes = np.random.default_rng(3).standard_normal((23, 6))
    similarity = nodes @ nodes.T
    wanted = round(min(degree, 22) * 23 / 2)
    pairs = sorted(itertools.combinations(range(23), 2), key=lambda pair: -similarity[pair])[:wanted]
    assert np.array_equal(by_degree(similarity, degree), graph(23, pairs))


def test_pairs_that_are_level_with_the_first_left_out_are_left_out():
    similarity = np.array([[1, 0.9, 0.5, 0.5], [0.9, 1, 0.5, 0.1], [0.5, 0.5, 1, 0.1], [0.5, 0.1, 0.1, 1]])
    assert np.array_equal(by_degree(similarity, 1), graph(4, [(0, 1)]))
    assert by_degree(similarity, 3).sum() == 12
    assert not by_degree(similarity[:1, :1], 3).any()


def test_nodes_that_are_not_there_are_joined_to_none():
    nodes = np.random.default_rng(5).standard_normal((12, 4))
    among = np.arange(12) % 3 > 0
    similarity = nodes @ nodes.T
    joined = by_degree(similarity, 2, among)
    assert not joined[~among].any() and not joined[:, ~among].any()
    assert np.array_equal(joined[np.ix_(among, among)], by_degree(similarity[np.ix_(among, among)], 2))
    level = by_level(similarity, 0.3, among)
    assert np.array_equal(level[np.ix_(among, among)], by_level(similarity[np.ix_(among, among)], 0.3))
    assert not level[~among].any() and not level.diagonal().any()


def test_shared_neighbours_are_those_of_the_product():
    joined = drawn(40, 0.2, 7)
    common = joined.astype(int) @ joined.astype(int)
    for least in (1, 2, 3):
        assert np.array_equal(shared(joined, least), joined & (common >= least))


def test_centres_are_means_and_the_nearest_are_counted_as_stated():
    nodes = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    cliques = [(0, 1, 2), (1, 3), (4,), (5,), (6, 7, 8)]
    found = HyperClasses.of(cliques, nodes)
    for place, clique in enumerate(cliques):
        assert torch.allclose(found.centres[place], nodes[list(clique)].mean(0))
    query = torch.randn(5, generator=torch.Generator().manual_seed(1))
    order = sorted(range(5), key=lambda place: -float(nodes[list(cliques[place])].mean(0) @ query))
    for share, count in ((0.1, 1), (0.2, 1), (0.39, 1), (0.4, 2), (1.0, 5)):
        expected = sorted({node for place in order[:count] for node in cliques[place]})
        assert found.nearest(query, share).tolist() == expected
    assert found.nearest(query, 0.21, upward=True).tolist() == sorted(
        {node for place in order[:2] for node in cliques[place]}
    )
    by_angle = sorted(range(5), key=lambda place: -float(torch.cosine_similarity(found.centres[place], query, dim=0)))
    assert found.nearest(query, 0.2, cosine=True).tolist() == sorted(cliques[by_angle[0]])


def test_cliques_that_are_level_come_in_their_order():
    found = HyperClasses.of([(0,), (1,), (2,)], torch.ones(3, 2))
    assert found.nearest(torch.ones(2), 0.4).tolist() == [0]


def test_a_rule_leaves_empty_nodes_out_and_thins_a_graph_of_too_many_cliques():
    nodes = torch.randn(10, 4, generator=torch.Generator().manual_seed(2))
    nodes[[2, 5]] = 0
    found = Rule(degree=3, common=0).cliques(nodes, 0)
    assert set(itertools.chain(*found)) == set(range(10)) - {2, 5}
    groups = torch.arange(30) // 3  # 3^10 cliques if all pairs of other groups are joined
    far = torch.where(groups[:, None] == groups, -1.0, 1.0) + 0.01 * torch.rand(30, 30)
    values, vectors = torch.linalg.eigh((far + far.T) / 2)
    dense = vectors * values.clamp_min(0).sqrt()
    found = Rule(level=0.0, common=0).cliques(dense, 0)
    assert 0 < len(found) <= 50 * 30 + 1


def test_a_level_grows_with_the_images():
    nodes = torch.nn.functional.normalize(torch.randn(12, 3, generator=torch.Generator().manual_seed(4)), dim=1)
    rule = Rule(level=0.2, growth=0.01, common=0)
    for number in (0, 30, 90):
        level = min(1.0, 0.2 + 0.01 * number)
        joined = ((nodes @ nodes.T) > level).numpy() & ~np.eye(12, dtype=bool)
        assert rule.cliques(nodes, number) == maximal_cliques(bits(joined))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_after_a_graph_that_is_much_alike_the_cliques_are_the_same(share):
    """Edges come and go, down to none and up to all of one node's; each time all cliques are found."""
    draw = np.random.default_rng(1)
    joined = drawn(30, share, 0)
    before = bits(joined), maximal_cliques(bits(joined))
    for number in range(40):
        for a, b in draw.integers(0, 30, (number % 5, 2)):
            joined[a, b] = joined[b, a] = a != b and not joined[a, b]
        if number % 10 == 9:
            joined[number % 30] = joined[:, number % 30] = number % 20 == 9
            np.fill_diagonal(joined, False)
        rows = bits(joined)
        expected = sorted(tuple(sorted(each)) for each in networkx.find_cliques(networkx.from_numpy_array(joined)))
        found = maximal_cliques(rows, before=before)
        assert found == expected
        before = rows, found


def test_too_many_cliques_are_too_many_after_another_graph_as_well():
    groups = np.arange(12) // 3
    rows = bits(groups[:, None] != groups)
    known = maximal_cliques(rows)
    rows[0] ^= 2
    rows[1] ^= 1
    count = len(maximal_cliques(rows))
    assert len(maximal_cliques(rows, count, before=(bits(groups[:, None] != groups), known))) == count
    with pytest.raises(TooMany):
        maximal_cliques(rows, count - 1, before=(bits(groups[:, None] != groups), known))


@pytest.mark.parametrize("join", [by_degree, by_level])
def test_a_level_between_two_roundings_of_a_pair_is_on_one_side_of_both(join):
    similarity = np.full((3, 3), 0.1, dtype=np.float32)
    similarity[0, 1], similarity[1, 0] = 0.5, np.nextafter(np.float32(0.5), np.float32(1))
    joined = join(similarity, 2 / 3 if join is by_degree else 0.5)
    assert np.array_equal(joined, joined.T) and joined[0, 1]


def test_a_rule_finds_the_same_after_whatever_was_found_before():
    draw, rule = torch.Generator().manual_seed(5), Rule(degree=4, common=1)
    nodes = torch.nn.functional.normalize(torch.randn(40, 8, generator=draw), dim=1)
    before = rule.search(nodes, 0)
    for number in range(12):
        nodes = nodes.clone()
        nodes[number::7] += 0.3 * torch.randn(nodes[number::7].shape, generator=draw)
        nodes[number] = 0
        found = rule.search(nodes, number, before)
        assert found.cliques == rule.search(nodes, number).cliques == maximal_cliques(found.edges)
        before = found
