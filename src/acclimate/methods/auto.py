"""Auto: statistics by what each batch shows, learning while labels do not cluster."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from acclimate.anatomy import class_count
from acclimate.core.config import positive, whole
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import Normalization
from acclimate.core.state import State
from acclimate.methods.palm import PALM
from acclimate.normalization.shallow import SHARE, SPREAD, ShallowStatistics, can_follow
from acclimate.normalization.shallow_layer import ShallowLayer
from acclimate.parts.label_clusters import label_clustering

__all__ = ["Auto"]

_MOST = 4  # limits that the kept clustering is cut at, so that it is soon forgotten


@methods.register("auto")
@dataclass(frozen=True, kw_only=True)
class Auto(Method):
    """Choose what each batch asks for: which statistics in which layers, and whether to learn from it.

    *Statistics* are those of the normalisation "shallow:auto". Shallow layers take the batch's, or those of groups of
    alike samples where domains mix. Deep ones, which follow classes as much as domains, take the batch's while labels
    do not cluster, and the source's while they do.

    *Whether labels cluster* is told by answers under batch statistics in all layers. Of n rows,
    `x = (a - 1/C) / (1 - 1/C)`, `a = sum_{i != j} p_i . p_j / (n (n - 1))`, is about 0 for balanced classes that come
    in no order. Kept is `e <- e + n / (n + rows) (x - sqrt(2 / (C - 1)) / n - e)`, cut at four times `limit`. Labels
    cluster while `e >= limit`, at first they do.

    *Learning* is the `learner`'s step. While labels cluster, and on batches below `least` rows, the answer is given by
    source statistics in deep layers and nothing is learned; a second forward by batch statistics moves e.

    A model without batch norm of torch's own with running statistics, or with one output only, answers as the source:
    on networks with layer or group norm learners gain little and may lose all.

    Arguments: `learner`, a name, preset or instance, by default PALM without its view, whose own normalisation is not
    used; `limit` > 0, of e; `rows` > 0, the memory of e in rows; `least` >= 2.
    Chosen on validation streams (training images, four other corruptions), see the page on auto.

    Cost: one forward and the learner's backwards; two forwards and no backward while labels cluster. One host read a
    step beside the learner's. `explain` tells in words what it does and why, `last.values` in numbers
    (domains_mix, spread, clustering, learning), `last.detail("batch_share")` the share of the batch's statistics in
    each layer.
    Raises ValueError as its learner does, for models that it learns from; never for want of batch norms.
    Source: ours; of PALM, AAAI 2025 (arXiv 2403.10650), and FIND, NeurIPS 2025 (arXiv 2506.06782).
    Fails to gain anything where there is no batch norm; takes an uneven share of classes for clusters and learns
    nothing then; needs some ten batches to tell clusters from chance where there are few rows.

    Example: `acclimate.adapt(net, "auto")`.
    """

    card: ClassVar[Card] = Card(
        summary="takes the statistics each batch asks for, and learns while labels do not cluster",
        paper="ours, of PALM (arXiv 2403.10650) and FIND (arXiv 2506.06782)",
        needs=frozenset({"backward"}),
        batch_of_one="as the source with a little of the sample's statistics",
        fails_when="there is no batch norm: it then answers as the source",
    )
    normalization: str | Normalization = "shallow:auto"
    learner: str | Method = PALM(consistency=0.0)  # noqa: RUF009 (frozen)
    limit: float = 0.0125
    rows: float = 200.0
    least: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "learner", methods.build(self.learner))
        super().__post_init__()

    def check(self) -> None:
        positive(limit=self.limit, rows=self.rows)
        whole(2, least=self.least)

    @property
    def _learner(self) -> Method:
        assert isinstance(self.learner, Method)
        return self.learner

    def setup(self, state: State) -> None:
        if not can_follow(state.model) or class_count(state.model) == 1:
            return
        self._learner.setup(state)
        weight = next(iter(state.weights.values()))
        state.declare("clustering", torch.full((), self.limit, device=weight.device), initial=self.limit)

    def ready(self, state: State) -> None:
        if state.weights:
            self._learner.ready(state)

    def step(self, state: State, x: Tensor) -> Tensor:
        if not state.weights:
            return state.forward(x)
        learns = state.rehearsing or (len(x) >= self.least and float(state["clustering"]) < self.limit)
        logits = self._learn(state, x) if learns else self._hold(state, x)
        self._record(state, len(x), learns)
        return logits

    def _learn(self, state: State, x: Tensor) -> Tensor:
        _follow(state, 1.0)
        logits = self._learner.step(state, x)
        self._look(state, logits.detach())
        return logits

    @torch.no_grad()
    def _hold(self, state: State, x: Tensor) -> Tensor:
        _follow(state, 0.0)
        logits = state.forward(x)
        if len(x) >= self.least:
            _follow(state, 1.0)
            self._look(state, state.forward(x, answering=False))
            _follow(state, 0.0)
        return logits

    @torch.no_grad()
    def _look(self, state: State, logits: Tensor) -> None:
        """Move the kept clustering by what these answers tell, less the deviation that chance gives it."""
        kept, count = state["clustering"], len(logits)
        chance = (2 / (logits.shape[1] - 1)) ** 0.5 / count
        kept.lerp_(label_clustering(logits).to(kept) - chance, count / (count + self.rows))
        kept.clamp_(max=_MOST * self.limit)

    def _record(self, state: State, count: int, learns: bool) -> None:
        state.note(learning=float(learns), clustering=state["clustering"].clone())
        layers = [layer for layer in state.layers if isinstance(layer, ShallowLayer)]
        if layers and SPREAD in state.table.slots:
            spread = state.table.slots[SPREAD].tensor.clone()
            state.note(spread=spread, domains_mix=(spread > layers[0].config.level).to(spread.dtype))
            shares = torch.stack([layer.batch_share(count) for layer in layers])
            state.detail("batch_share", shares, [layer.name for layer in layers])

    def explain(self, state: State) -> str:
        """In one or two sentences: which statistics the layers take, whether domains mix and labels cluster, and why.

        From declared state alone, so it holds of a resumed adaptation too. Reads three numbers from the device.

        >>> import acclimate
        >>> adapted = acclimate.adapt(torch.nn.Linear(4, 2), "auto")
        >>> adapted.method.explain(adapted.state)
        'It answers as the source: this model has no batch norm whose statistics could follow the stream.'
        """
        if "clustering" not in state:
            return "It answers as the source: this model has no batch norm whose statistics could follow the stream."
        clustering, limit = float(state["clustering"]), self.limit
        found = self.normalization
        text = "Its statistics are those of another normalisation. "
        if isinstance(found, ShallowStatistics) and SPREAD in state.table.slots:
            spread = float(state.table.slots[SPREAD].tensor)
            mixed = found.groups == "auto" and spread > found.level
            shallow = "groups of alike samples, since domains mix" if mixed else "the whole batch, whose domain is one"
            deep = "the batch" if float(state.table.slots[SHARE].tensor) > 0 else "the source"
            text = (
                f"Layers of middle depth take the statistics of {shallow} (spread {spread:.2f}, border "
                f"{found.level:.2f}), deep ones those of {deep}. "
            )
        if clustering < limit:
            return text + f"It learns: labels do not cluster (clustering {clustering:.3f}, limit {limit:.4g})."
        since = "nothing has told yet whether labels cluster" if not state.batches else "labels cluster"
        return text + f"It holds: {since} (clustering {clustering:.3f}, limit {limit:.4g})."

    def respond(self, state: State, x: Tensor) -> Tensor:
        return self._learner.respond(state, x) if state.weights else state.forward(x)

    def plain(self) -> bool:
        return self._learner.plain()

    def cost(self) -> Cost:
        cost = self._learner.cost()
        return dataclasses.replace(
            cost, forwards=max(2, cost.forwards), bound=max(2, cost.bound), numbers=cost.numbers + 3
        )


def _follow(state: State, share: float) -> None:
    """Let deep layers take the batch's statistics, or none of them."""
    if SHARE in state.table.slots:
        state.table.slots[SHARE].tensor.fill_(share)
