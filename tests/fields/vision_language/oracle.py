"""The methods once more, from the formulas of their papers: float64, lists and loops, one image at a time.

Each takes raw features of an image, `[V, D]` and `[A]`, and gives `[K]` scores. `margin` is how far the closest
decision of a cache was from falling otherwise, and `clear` whether the graphs and the choice of cliques of the last
answer were further from it than rounding in single precision goes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import networkx
import numpy as np

LEVEL, ROUNDING = 1e-9, 1e-5
"""What is no further apart than the first is level; between the two, single precision may tell it either way."""

Array = np.ndarray


def unit(rows: Array) -> Array:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(values: Array) -> Array:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def entropy(shares: Array, added: float = 0.0) -> float:
    """`-sum p ln(p + added)`, which the released code adds lest the logarithm be infinite."""
    return -sum(p * math.log(p + added) for p in shares.tolist() if p > 0)


def affinity(nodes: Array, query: Array, beta: float) -> Array:
    return np.exp(-beta * (1 - nodes @ query))


class Oracle:
    def __init__(self, texts: Array, scale: float) -> None:
        self.texts, self.scale, self.classes = unit(texts), scale, len(texts)
        self.margin, self.clear, self.number = math.inf, True, 0

    def step(self, views: Array, auxiliary: Array | None = None) -> Array:
        features = unit(views)
        logits = self.scale * features @ self.texts.T
        self.clear = True
        scores = self.score(features, logits, softmax(logits), None if auxiliary is None else unit(auxiliary))
        self.number += 1
        return scores

    def score(self, x: Array, logits: Array, predictions: Array, z: Array | None) -> Array:
        """Zero-shot."""
        return logits[0]

    def decided(self, one: float, other: float) -> None:
        self.margin = min(self.margin, abs(one - other))

    def label(self, values: Array) -> int:
        if len(values) > 1:
            self.decided(*np.sort(values)[-2:])
        return int(values.argmax())

    def sure(self, predictions: Array, share: float) -> list[int]:
        """The `max(1, floor(share V))` views of least entropy, the surest first."""
        doubts = [entropy(row, 1e-6) for row in predictions]
        order = sorted(range(len(doubts)), key=lambda view: doubts[view])
        count = max(1, math.floor(share * len(doubts)))
        if count < len(order):
            self.decided(doubts[order[count - 1]], doubts[order[count]])
        return order[:count]


class Entries:
    """Of each class a list in ascending order of entropy: the least sure gives way to a surer one."""

    def __init__(self, oracle: Oracle, capacity: int) -> None:
        self.oracle, self.capacity = oracle, capacity
        self.of: list[list[tuple]] = [[] for _ in range(oracle.classes)]

    def add(self, label: int, doubt: float, *what: Array) -> bool:
        own = self.of[label]
        if len(own) < self.capacity:
            own.append((doubt, *what))
        else:
            self.oracle.decided(doubt, own[-1][0])
            if not doubt < own[-1][0]:
                return False
            own[-1] = (doubt, *what)
        own.sort(key=lambda entry: entry[0])
        return True


class Slots(Entries):
    """A class that is full gives the place of its largest entropy to a surer one."""

    def add(self, label: int, doubt: float, *what: Array) -> bool:
        own = self.of[label]
        if len(own) < self.capacity:
            own.append((doubt, *what))
            return True
        worst = max(range(len(own)), key=lambda place: own[place][0])
        self.oracle.decided(doubt, own[worst][0])
        if not any(entry[0] > doubt for entry in own):
            return False
        own[worst] = (doubt, *what)
        return True


class TDA(Oracle):
    places, negative_places, alpha, beta = 3, 2, 2.0, 5.0
    share = 0.1

    def __init__(self, texts: Array, scale: float, **settings: float) -> None:
        super().__init__(texts, scale)
        for name, value in settings.items():
            assert hasattr(self, name)
            setattr(self, name, value)
        self.positive, self.negative = Entries(self, self.places), Entries(self, self.negative_places)
        self.into_negative = 0

    def query(self, x: Array, logits: Array, predictions: Array) -> tuple[Array, Array, Array]:
        if len(x) == 1:
            return x[0], logits[0], predictions[0]
        kept = self.sure(predictions, self.share)
        return x[kept].mean(0), logits[kept].mean(0), predictions[kept].mean(0)

    def score(self, x: Array, logits: Array, predictions: Array, z: Array | None) -> Array:
        f, scores, p = self.query(x, logits, predictions)
        label, doubt = self.label(scores), entropy(p)
        self.positive.add(label, doubt, f)
        relative = doubt / math.log2(self.classes)
        for bound in (0.2, 0.5):
            self.decided(relative, bound)
        if 0.2 < relative < 0.5:
            self.into_negative += 1
            self.forbid(label, doubt, f, p)
        scores = scores.copy()
        for c, _, k in self.keys(x, predictions):
            scores[c] += self.alpha * math.exp(-self.beta * (1 - f @ k))
        for _, k, p_then in itertools.chain(*self.negative.of):
            scores -= 0.117 * math.exp(-1.0 * (1 - f @ k)) * ((p_then > 0.03) & (p_then < 1.0))
        return scores

    def forbid(self, label: int, doubt: float, f: Array, p: Array) -> None:
        self.negative.add(label, doubt, f, p)

    def keys(self, x: Array, predictions: Array) -> list[tuple]:
        """Class, entropy and feature of whatever votes."""
        return [(c, *entry) for c, own in enumerate(self.positive.of) for entry in own]


class BoostAdapter(TDA):
    boost, averaged, first_in_first_out = 3, True, True

    def query(self, x: Array, logits: Array, predictions: Array) -> tuple[Array, Array, Array]:
        return super().query(x, logits, predictions) if self.averaged else (x[0], logits[0], predictions[0])

    def forbid(self, label: int, doubt: float, f: Array, p: Array) -> None:
        if not self.first_in_first_out:
            return super().forbid(label, doubt, f, p)
        own = self.negative.of[label]
        own.append((doubt, f, p))
        del own[: -self.negative_places]

    def keys(self, x: Array, predictions: Array) -> list[tuple]:
        kept = self.sure(predictions, self.share)
        lists = [list(own) for own in self.positive.of]
        guests = [(int(predictions[view].argmax()), entropy(predictions[view]), x[view]) for view in kept]
        for label, doubt, feature in guests:
            lists[label].append((doubt, feature))
        found = []
        for c, own in enumerate(lists):
            own.sort(key=lambda entry: entry[0])
            most = self.places + self.boost
            if len(own) > most and not np.array_equal(own[most - 1][1], own[most][1]):  # the image, kept and guest
                self.decided(own[most - 1][0], own[most][0])
            found += [(c, *entry) for entry in own[:most]]
        return found


class ZERO(Oracle):
    """Votes of the surest views; the class that wins where several have the most is `winner`."""

    winner = -1
    how = ""

    def score(self, x: Array, logits: Array, predictions: Array, z: Array | None) -> Array:
        order = self.sure(predictions, 1.0)
        count = max(1, int(0.3 * len(order)))
        self.sure(predictions, 0.3)
        kept, left = order[:count], order[count:]
        votes = np.zeros(self.classes)
        for view in kept:
            votes[logits[view].argmax()] += 1
        tied = [c for c in range(self.classes) if votes[c] == votes.max()]
        self.winner, self.how = self.choose(logits, tied, left)
        return votes

    @staticmethod
    def choose(logits: Array, tied: list[int], left: list[int]) -> tuple[int, str]:
        if len(tied) == 1:
            return tied[0], "most"
        for view in left:
            if logits[view].argmax() in tied:
                return int(logits[view].argmax()), "another view"
        return max(tied, key=lambda c: logits[left[0]][c]), "largest logit"


def centres(memory: Slots, texts: Array, query: Array, attention: float) -> Array:
    """Of each class: `norm(sum a_j m_j)` over its entries and its text, `a_j = exp(-attention (1 - m_j q))`."""
    found = []
    for own, text in zip(memory.of, texts, strict=True):
        rows = unit(np.array([*(entry[1] for entry in own), text]))
        weights = np.exp(-attention * (1 - rows @ query))
        found.append(unit(weights @ rows))
    return np.array(found)


class DMN(Oracle):
    def __init__(self, texts: Array, scale: float, *, places: int = 50, weight: float = 1.0) -> None:
        super().__init__(texts, scale)
        self.memory, self.weight = Slots(self, places), weight

    def score(self, x: Array, logits: Array, predictions: Array, z: Array | None) -> Array:
        mean = predictions[self.sure(predictions, 0.1)].mean(0)
        self.memory.add(self.label(mean), entropy(mean, 1e-8), x[0])
        visual = centres(self.memory, self.texts, x[0], 5.5)
        return predictions[0] + self.weight * softmax(self.scale * visual @ x[0])


def told(one: float, other: float) -> bool:
    return not LEVEL < abs(one - other) < ROUNDING


def edges_by_degree(similarity: Array, there: Sequence[int], target: float) -> tuple[list[tuple[int, int]], bool]:
    """Pairs above the (m + 1)-th largest similarity, m = round(target N / 2); and whether rounding keeps out of it."""
    pairs = list(itertools.combinations(there, 2))
    wanted = round(min(target, len(there) - 1) * len(there) / 2)
    if wanted >= len(pairs):
        return pairs, True
    values = sorted((similarity[pair] for pair in pairs), reverse=True)
    clear = wanted == 0 or told(values[wanted - 1], values[wanted])
    return [pair for pair in pairs if similarity[pair] > values[wanted] + LEVEL], clear


def edges_by_level(similarity: Array, there: Sequence[int], level: float) -> tuple[list[tuple[int, int]], bool]:
    pairs = list(itertools.combinations(there, 2))
    clear = all(abs(similarity[pair] - level) > ROUNDING for pair in pairs)
    return [pair for pair in pairs if similarity[pair] > level], clear


def cliques_of(there: Sequence[int], edges: list[tuple[int, int]], common: int) -> list[list[int]]:
    """Maximal cliques over the edges whose ends have `common` neighbours, in lexicographic order."""
    whole = networkx.Graph(edges)
    whole.add_nodes_from(there)
    kept = networkx.Graph()
    kept.add_nodes_from(there)
    kept.add_edges_from((a, b) for a, b in edges if len({*whole[a]} & {*whole[b]}) >= common)
    return sorted(sorted(clique) for clique in networkx.find_cliques(kept))


class Space:
    """One of COSMIC's graphs: cliques and centres as they were when it was last rebuilt."""

    def __init__(self, cosmic: COSMIC, target: float, level: float | None) -> None:
        self.cosmic, self.target, self.level = cosmic, target, level
        self.cliques: list[list[int]] = []
        self.anchors: list[Array] = []
        self.built = -1
        self.changed = False
        self.rebuilds: list[int] = []
        self.clear = True

    def refresh(self, nodes: Array, changed: bool) -> None:
        c, i = self.cosmic, self.cosmic.number
        early = i <= c.classes * c.places
        self.changed |= changed
        due = self.changed and i - self.built >= c.warm_refresh if early else i % c.refresh == 0
        if not (due or self.built < 0):
            return
        self.built, self.changed = i, False
        self.rebuilds.append(i)
        there = [j for j in range(len(nodes)) if np.any(nodes[j] != 0)]
        rows = nodes.copy()
        if c.cosine:
            rows[there] = unit(rows[there])
        similarity = rows @ rows.T
        if self.level is None:
            edges, self.clear = edges_by_degree(similarity, there, self.target)
        else:
            edges, self.clear = edges_by_level(similarity, there, min(1.0, self.level + c.growth * i))
        self.cliques = cliques_of(there, edges, c.common)
        self.anchors = [sum(nodes[j] for j in clique) / len(clique) for clique in self.cliques]

    def inliers(self, query: Array) -> set[int]:
        c = self.cosmic
        near = [float(a @ query) / (np.linalg.norm(a) if c.cosine else 1.0) for a in self.anchors]
        count = c.share * len(near)
        count = max(1, math.ceil(count) if c.upward else math.floor(count))
        order = sorted(range(len(near)), key=lambda m: -round(near[m], 9))
        c.clear &= self.clear
        if count < len(order):
            c.clear &= told(near[order[count - 1]], near[order[count]])
        return {node for m in order[:count] for node in self.cliques[m]}

    def affinities(self, nodes: Array, query: Array) -> Array:
        c = self.cosmic
        chosen = self.inliers(query) if c.cliques else {j for j in range(len(nodes)) if np.any(nodes[j] != 0)}
        if c.inliers == "softmax":
            values = softmax(c.scale * nodes @ query)
        else:
            values = c.alpha * affinity(nodes, query, c.beta)
        return np.array([values[j] if j in chosen else 0.0 for j in range(len(nodes))])


class COSMIC(Oracle):
    """Section by section as specified; settings by the names of the method, those of the released code by default."""

    places, auxiliary_places, attention, alpha, beta = 8, 8, 5.5, 2.0, 5.0
    share, degree, clip_degree, common, ratio = 0.2, 5.0, 0.8, 2, 0.1
    level: float | None = None
    auxiliary_level: float | None = None
    growth, cosine, upward, cliques, inliers, doubt_of = 0.0, False, False, True, "affinity", "softmax"
    refresh, warm_refresh, weights = 50, 1, (1.0, 1.0, 1.0)

    def __init__(self, texts: Array, scale: float, **settings: object) -> None:
        super().__init__(texts, scale)
        for name, value in settings.items():
            assert hasattr(self, name)
            setattr(self, name, value)
        self.memory, self.finer = Slots(self, self.places), Entries(self, self.auxiliary_places)
        self.css = Space(self, self.clip_degree * self.degree, self.level)
        self.afv = Space(self, self.degree, self.auxiliary_level)

    def score(self, x: Array, logits: Array, predictions: Array, z: Array | None) -> Array:
        p0, q = predictions[0], x[0]
        kept = self.sure(predictions, self.ratio)
        mean = predictions[kept].mean(0)
        changed = self.memory.add(self.label(mean), entropy(mean, 1e-8), x[kept].mean(0))
        visual = centres(self.memory, self.texts, q, self.attention)
        nodes = np.concatenate([self.texts, visual])
        if self.cliques:
            self.css.refresh(nodes, changed)
        both = self.css.affinities(nodes, q)
        by_clip = (both[: self.classes] + both[self.classes :]) / 2
        scores = self.weights[0] * p0 + self.weights[1] * by_clip
        if self.weights[2]:
            assert z is not None
            scores = scores + self.weights[2] * self.by_auxiliary(p0 + softmax(self.scale * visual @ q), z)
        return scores

    def by_auxiliary(self, t: Array, z: Array) -> Array:
        doubt = entropy(softmax(t)) if self.doubt_of == "softmax" else entropy(t / 2)
        changed = self.finer.add(self.label(t), doubt, z)
        nodes = np.array([sum(e[1] for e in own) / len(own) if own else np.zeros_like(z) for own in self.finer.of])
        if self.cliques:
            self.afv.refresh(nodes, changed)
        return self.afv.affinities(nodes, z)
