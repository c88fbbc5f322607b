"""COSMIC's rule, beyond the encoders, against the same rule with networkx cliques and full rebuilds.

`python -m benchmarks.cliques [--classes 200] [--images 64]`: a stream of features after the caches are full, each image
answered by all arms in turn, in one run; the cliques are compared after each batch. The plain arm searches both graphs
anew for each image, as the rule is written down: dense products, a bisection for the threshold, networkx for the
cliques. It counts common neighbours by a product in single precision, as the released code does; a second one by a
product of whole numbers, which numpy has no fast one of.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import networkx
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from acclimate import Adapted
from acclimate.fields import vision_language
from acclimate.fields.vision_language.graph.cliques import bits
from acclimate.fields.vision_language.graph.keeping import Found, Rule
from acclimate.fields.vision_language.methods.cosmic import COSMIC


class PlainRule(Rule):
    """The same graph, found the slow way, whatever was found before."""

    @property
    def lasts(self) -> bool:
        return False

    def product(self, joined: NDArray[np.bool_]) -> NDArray[Any]:
        return joined.astype(np.float32) @ joined.astype(np.float32)

    def search(self, nodes: Tensor, number: int, before: Found | None = None) -> Found:
        there = (nodes.abs().amax(1) > 0).numpy()
        own = nodes[torch.from_numpy(there)].numpy()
        similarity = own @ own.T
        np.fill_diagonal(similarity, -np.inf)
        wanted = round(min(self.degree, len(own) - 1) * len(own) / 2)
        low, high = float(similarity[np.isfinite(similarity)].min()) - 1e-6, float(similarity.max())
        for _ in range(500):
            middle = (low + high) / 2
            pairs = int((similarity > middle).sum()) // 2
            if pairs == wanted:
                break
            low, high = (middle, high) if pairs > wanted else (low, middle)
        joined = similarity > middle
        joined &= self.product(joined) >= self.common
        names = np.flatnonzero(there)
        found = networkx.find_cliques(networkx.from_numpy_array(joined))
        edges = np.zeros((len(nodes), len(nodes)), dtype=np.bool_)
        edges[np.ix_(names, names)] = joined
        return Found(
            bits(edges), sorted(tuple(sorted(int(names[node]) for node in clique)) for clique in found), there.tolist()
        )


class WholeRule(PlainRule):
    """The same, neighbours counted in whole numbers."""

    def product(self, joined: NDArray[np.bool_]) -> NDArray[Any]:
        return joined.astype(np.int64) @ joined.astype(np.int64)


_ARMS = {
    "ours, at every image": Rule,
    "networkx and bisection, at every image": PlainRule,
    "the same, counting in whole numbers": WholeRule,
}


def world(classes: int, images: int, width: int, finer: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features of images, of the auxiliary encoder, and of texts: classes in groups, in turn; texts elsewhere."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centres = drawn(classes // 5 + 1, width)[torch.arange(classes) % (classes // 5 + 1)] + 0.7 * drawn(classes, width)
    labels = torch.arange(images) % classes
    pictures = centres[labels] + drawn(width) + 0.8 * drawn(images, width)
    other = drawn(classes, finer)[labels] + 0.6 * drawn(images, finer)
    return pictures, other, centres + 0.4 * drawn(classes, width) - drawn(width)


def milliseconds(adapted: Adapted, x: Tensor, auxiliary: Tensor) -> tuple[float, Tensor]:
    start = time.perf_counter()
    answer = adapted(x, auxiliary=auxiliary)
    return (time.perf_counter() - start) * 1e3 / len(x), answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--images", type=int, default=64, help="answered by both")
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--finer", type=int, default=384)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    filling = 3 * options.classes * options.places
    x, auxiliary, texts = world(options.classes, filling + options.images, options.width, options.finer)
    method = COSMIC(places=options.places, auxiliary_places=options.places, warm_refresh=50)
    adapted = vision_language.adapt(None, texts, method)
    for start in range(0, filling, 64):
        adapted(x[start : start + 64], auxiliary=auxiliary[start : start + 64])
    full = [float((adapted.state[f"{name}.counts"] >= options.places).float().mean()) for name in ("clip", "auxiliary")]
    ours, told = list[float](), {name: list[float]() for name in _ARMS}
    for number in range(filling, filling + options.images, options.batch):
        rows = slice(number, number + options.batch)
        before = adapted.snapshot("before")
        with adapted.frozen():  # what the other arms left behind is found anew here, not in the measured call
            adapted(x[rows], auxiliary=auxiliary[rows])
        ours.append(milliseconds(adapted, x[rows], auxiliary[rows])[0])
        after = adapted.snapshot("after")
        for name, rule in _ARMS.items():
            adapted.restore(before)
            told[name].append(_searched(adapted, x[rows], auxiliary[rows], rule))
        _compare(adapted, number)
        adapted.restore(after)
    table = Table(
        title=f"{options.classes} classes, caches {full[0]:.0%} and {full[1]:.0%} full, {options.threads} threads"
    )
    for column in ("", "ms an image", "over ours"):
        table.add_column(column, justify="left" if not column else "right")
    middle = statistics.median(ours)
    for name, values in {"ours, every 50 images": ours, **told}.items():
        table.add_row(name, f"{statistics.median(values):.2f}", f"{statistics.median(values) / middle:.1f}")
    Console(width=110).print(table)


def _searched(adapted: Adapted, x: Tensor, auxiliary: Tensor, rule: type[Rule]) -> float:
    """Milliseconds an image where both graphs are rebuilt for each, by this rule."""
    method, own = adapted.method, COSMIC._rule
    rebuilt = method.__class__(**{**vars(method), "refresh": 1})
    COSMIC._rule = lambda self, degree, level: rule(degree=degree, level=level, common=self.common)
    adapted.method = rebuilt
    try:
        return milliseconds(adapted, x, auxiliary)[0]
    finally:
        COSMIC._rule, adapted.method = own, method


def _compare(adapted: Adapted, number: int) -> None:
    """Both rules find the same cliques among the nodes of this moment."""
    for graph in adapted.method.graphs().values():
        nodes = adapted.state[f"{graph.name}.nodes"]
        rule = graph.rule
        slow = PlainRule(degree=rule.degree, common=rule.common).cliques(nodes, number)
        if rule.cliques(nodes, number) != slow:
            raise RuntimeError(f"the cliques of {graph.name} differ at image {number}.")


if __name__ == "__main__":
    main()
