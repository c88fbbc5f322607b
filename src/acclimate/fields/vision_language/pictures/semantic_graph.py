"""Classes as points, joined where they are alike, with the cliques of one of them filled in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from acclimate.adapted import Adapted
from acclimate.experiment.plots.style import GREY, INK, blank, colours
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.pictures.kept import written
from acclimate.fields.vision_language.samples import pair

__all__ = ["semantic_graph"]


def semantic_graph(adapted: Adapted, *, space: str = "auxiliary", about: int | None = None) -> Figure:
    """The graph that COSMIC has now, classes placed by how alike they are, and the cliques that hold class `about`.

    Arguments: `adapted`, under COSMIC, after some images; `space`, "auxiliary" or "clip", where a class has a node for
    its texts (square) and one for its images (circle); `about`, a class, by default the one in most cliques.

    Raises ValueError for another method, one without cliques, a space it does not use, a class that there is not, or
    before the first image.
    """
    nodes, cliques = _known(adapted, space)
    names = pair(adapted.state).classes or tuple(
        str(number) for number in range(len(pair(adapted.state).text_features))
    )
    count = len(names)
    if about is not None and not 0 <= about < count:
        raise ValueError(f"there is no class {about}, expected one from 0 to {count - 1}.")
    places = _placed(nodes.numpy())
    of = [{node % count for node in clique} for clique in cliques]
    if about is None:
        about = int(np.argmax([sum(number in members for members in of) for number in range(count)]))
    figure, axes = blank(8, 6.4)
    chosen = [clique for clique, members in zip(cliques, of, strict=True) if about in members and len(clique) > 1]
    palette = colours(["source", *(str(number) for number in range(len(chosen)))])
    for clique in cliques:
        for place, node in enumerate(clique):
            for other in clique[place + 1 :]:
                axes.plot(*places[[node, other]].T, color="#d5d8dd", linewidth=0.8, zorder=1)
    for number, clique in enumerate(chosen):
        corners = _around(places[list(clique)])
        axes.add_patch(Polygon(corners, facecolor=palette[str(number)], alpha=0.22, edgecolor=palette[str(number)]))
    alone = {clique[0] for clique in cliques if len(clique) == 1}
    for node in sorted({node for clique in cliques for node in clique}):
        own = node % count == about
        colour = INK if own else GREY if node in alone else "#4a5160"
        marker = "s" if space == "clip" and node < count else "o"
        axes.plot(*places[node], marker, color=colour, markersize=7 if own else 5, zorder=3)
        axes.annotate(
            written(names[node % count]), places[node], (4, 4), textcoords="offset points", fontsize=8,
            fontweight="bold" if own else "normal", color=INK,
        )  # fmt: skip
    name = written(names[about])
    told = f"{len(cliques)} cliques of {sum(map(len, of)) / max(1, len(of)):.1f} classes in the mean"
    axes.set_title(f"{space}: {told}; filled: the {len(chosen)} that hold {name}", loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.margins(0.12)
    return figure


def _known(adapted: Adapted, space: str) -> tuple[torch.Tensor, Sequence[tuple[int, ...]]]:
    method, state = adapted.method, adapted.state
    if not isinstance(method, COSMIC):
        raise ValueError(f"found the method {method.name}, expected cosmic, which has a graph.")
    if not method.cliques:
        raise ValueError("found COSMIC with cliques=False, which builds no graph. Leave that out to have one.")
    graph, known = method.graphs().get(space), " and ".join(method.graphs())
    if graph is None:
        raise ValueError(f"there is no space {space!r}, expected {known}, which this model compares in.")
    if graph.built(state) < 0:
        raise ValueError(f"there is no graph of the space {space!r} yet, only from its first image on. Answer some.")
    nodes = state[f"{graph.name}.nodes"]
    return nodes, graph.rule.cliques(nodes, graph.built(state))


def _placed(nodes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Two coordinates for each node `[N, 2]`, whose distances are near those of the nodes (classical scaling)."""
    there = np.abs(nodes).max(1) > 0
    centred = np.where(there[:, None], nodes - nodes[there].mean(0), 0).astype(np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places = left[:, :2] * sizes[:2]
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))


def _around(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of a clique's shape, in turn about its middle."""
    middle = points.mean(0)
    angles = np.arctan2(*(points - middle).T[::-1])
    return points[np.argsort(angles)]
