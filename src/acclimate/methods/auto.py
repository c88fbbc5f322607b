"""Auto: statistics by what each batch shows, learning while labels do not cluster."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.anatomy import class_count
from acclimate.core.config import one_of, positive, whole, whole_or_none
from acclimate.core.inputs import even_rows
from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.normalization import Normalization, normalizations
from acclimate.core.state import State
from acclimate.methods.palm import PALM
from acclimate.normalization.shallow import SHARE, SPREAD, ShallowStatistics, can_follow
from acclimate.normalization.shallow_layer import ShallowLayer
from acclimate.parts.label_clusters import class_shares, label_clustering, label_novelty

__all__ = ["Auto"]

_START, _MOST = 1.5, 4
"""Limits that the kept clustering begins with, and is cut at, so that it is soon forgotten."""

_PACE, _SHARE, _PROBE, _PLACES = 0.1, 0.1, 16, 64


@methods.register("auto")
@dataclass(frozen=True, kw_only=True)
class Auto(Method):
    """Choose what each batch asks for: which statistics in which layers, and whether to learn from it.

    *Statistics* are those of the normalisation "shallow:auto". Shallow layers take the batch's, or those of groups of
    alike samples where domains mix. Deep ones, which follow classes as much as domains, take the batch's while labels
    do not cluster, and the source's while they do.

    *Whether labels cluster* is told by the novelty x of the labels (`parts.label_clusters.label_novelty`): how far the
    classes of the answers by source statistics in deep layers are from those of late, a mean that each batch moves by
    0.1, uniform at first. Batch statistics in all layers would hide it: they spread even a single class over all. While
    it learns, only a probe of the batch, a tenth and 16 rows at least, is answered so, and x is no less than
    the clustering of the n answers given, `(a - 1/C) / (1 - 1/C)`, `a = sum_{i != j} p_i . p_j / (n (n - 1))`, less its
    deviation by chance `sqrt(2 / (C - 1)) / n`. Kept is `e <- e + n / (n + rows) (x - e)`, cut at four times
    `limit`. Labels cluster while `e >= limit`; e begins at 1.5 times that.

    *Learning* is the `learner`'s step. While labels cluster, and on batches below `least` rows, the answer is given by
    source statistics in deep layers and nothing is learned.

    A model without batch norm of torch's own with running statistics, or with one output only, answers as the source:
    on networks with layer or group norm learners gain little and may lose all.

    Arguments: `learner`, a name, preset or instance, by default PALM without its view; its own normalisation and
    memory policy are not used, and "bn" learns no weights; `limit` > 0, of e; `rows` > 0, the memory of e in rows;
    `least` >= 2; `classes`, how many the logits have, where the model's last layer does not tell: one that ends in a
    head of one output counts as having one. `steps` is 1. Chosen on validation streams (training images, four other
    corruptions), see the page on auto.

    Cost: the learner's, and for the probe 0.1 forwards of the batch, of few rows those of 16; one forward and no
    backward while labels cluster. One host read a step beside the learner's. Kept: C + 1 numbers. `explain` tells in
    words what it does and why, `last.values` in numbers (domains_mix, spread, clustering, learning),
    `last.detail("batch_share")` the share of the batch's statistics in each layer.
    Raises ValueError as its learner does, for models that it learns from; never for want of batch norms.
    Source: ours; of PALM, AAAI 2025 (arXiv 2403.10650), and FIND, NeurIPS 2025 (arXiv 2506.06782).
    Fails to gain anything where there is no batch norm; takes a change of the classes' shares for clusters, and a class
    that never changes for none; needs some ten batches to tell clusters from chance where there are few rows.

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
    limit: float = 0.035
    rows: float = 200.0
    least: int = 8
    classes: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "learner", methods.build(self.learner))
        super().__post_init__()

    def check(self) -> None:
        positive(limit=self.limit, rows=self.rows)
        whole(2, least=self.least)
        whole_or_none(1, classes=self.classes)
        one_of(1, steps=self.steps)
        found = self._learner
        if isinstance(found, Auto):
            raise ValueError("auto cannot be its own learner. Choose another method, such as learner='tent'.")
        if found.steps != 1 or found.episodic:
            raise ValueError(
                f"found the learner {found.name} with steps={found.steps} and episodic={found.episodic}, expected "
                "steps=1 and episodic=False: auto decides about each batch once. Choose these, or the learner alone."
            )

    def config(self) -> dict[str, Any]:
        """All settings; the number of classes only where it was said."""
        values = super().config()
        return values if self.classes else {key: value for key, value in values.items() if key != "classes"}

    @property
    def _learner(self) -> Method:
        assert isinstance(self.learner, Method)
        return self.learner

    def setup(self, state: State) -> None:
        classes = self.classes or _counted(state.model)
        if not can_follow(state.model) or classes == 1:
            return
        self._learner.setup(state)
        device = next(state.model.parameters()).device
        start = torch.full((), _START * self.limit, dtype=torch.float32, device=device)
        state.declare("clustering", start, initial=_START * self.limit, learned=False)
        usual = torch.full((classes,), 1 / classes, dtype=torch.float32, device=device)
        state.declare("usual", usual, initial=1 / classes, learned=False)

    def statistics(self, state: State) -> Normalization:
        return super().statistics(state) if _chooses(state) else normalizations.build("source")

    def ready(self, state: State) -> None:
        if _chooses(state):
            self._learner.ready(state)

    def step(self, state: State, x: Tensor) -> Tensor:
        if not _chooses(state):
            return state.forward(x)
        learns = state.rehearsing or (len(x) >= self.least and bool(state["clustering"] < self.limit))
        logits = self._learn(state, x) if learns else self._hold(state, x)
        self._record(state, len(x), learns)
        return logits

    def _learn(self, state: State, x: Tensor) -> Tensor:
        with torch.no_grad():
            _follow(state, 0.0)
            most = min(len(x), max(_PROBE, math.ceil(_SHARE * len(x))))
            rows = even_rows(len(x), most, x.device)  # since neighbours are alike where labels cluster
            found = self._novelty(state, state.forward(x[rows], answering=False, rows=rows))
            _follow(state, 1.0)
        logits = self._learner.step(state, x)
        chance = (2 / (logits.shape[1] - 1)) ** 0.5 / len(x)
        self._look(state, len(x), torch.maximum(found, label_clustering(logits.detach()) - chance))
        return logits

    @torch.no_grad()
    def _hold(self, state: State, x: Tensor) -> Tensor:
        _follow(state, 0.0)
        logits = state.forward(x)
        if len(x) >= self.least:
            self._look(state, len(x), self._novelty(state, logits))
        return logits

    def _novelty(self, state: State, logits: Tensor) -> Tensor:
        """Of these answers' classes; what is usual moves towards them."""
        usual = state["usual"]
        shares = class_shares(logits, len(usual))  # what counted the classes may not have been the head
        shares = F.pad(shares, (0, len(usual) - shares.shape[1]))
        novelty = label_novelty(shares, usual.to(shares.dtype))
        usual.lerp_(shares.mean(0).to(usual), _PACE)
        return novelty.clamp_min(0)

    def _look(self, state: State, count: int, found: Tensor) -> None:
        kept = state["clustering"]
        kept.lerp_(found.to(kept), count / (count + self.rows))
        kept.clamp_(max=_MOST * self.limit)

    def _record(self, state: State, count: int, learns: bool) -> None:
        state.note(learning=float(learns), clustering=state["clustering"].clone())
        layers = [layer for layer in state.layers if isinstance(layer, ShallowLayer)]
        if not layers or SPREAD not in state.table.slots:
            return
        spread, config = state.table.slots[SPREAD].tensor.clone(), layers[0].config
        if any(layer.watches for layer in layers):
            state.note(spread=spread, domains_mix=(spread > config.level).to(spread.dtype))
        shares = [layer.batch_share for layer in layers]
        shares = torch.stack([s.to(spread) if isinstance(s, Tensor) else spread.new_full((), s) for s in shares])
        state.detail("batch_share", shares, [layer.name for layer in layers])

    def explain(self, state: State) -> str:
        """In words: whose statistics layers took in the last answer, whether it learns now, and why.

        From declared state alone, so it holds of a resumed adaptation too. Reads a few numbers from the device.

        >>> import acclimate
        >>> adapted = acclimate.adapt(torch.nn.Linear(4, 2), "auto")
        >>> adapted.plan
        'It answers as the source: this model has no batch norm whose statistics could follow the stream.'
        """
        if not _chooses(state):
            lacks = "has no batch norm whose statistics could follow the stream"
            if can_follow(state.model):
                lacks = "has one output, of which every answer is certain (else say how many with classes=)"
            return f"It answers as the source: this model {lacks}."
        found = state.normalization
        known = isinstance(found, ShallowStatistics)
        text = found.explain(state) if known else "Its statistics are those of another normalisation."
        follows = float(state.table.slots[SHARE].tensor) if known and found.follow else None
        return f"{text} {self._intent(state, follows)}"

    def _intent(self, state: State, share: float | None) -> str:
        """Whether it learns, next to the `share` of the batch's statistics in the last answer's deep layers."""
        clustering, usual = state["clustering"], state["usual"]
        figures = f"(clustering {float(clustering):.3f}, limit {self.limit:.4g})"
        if bool(clustering < self.limit):
            verb = f"will learn from a batch of {self.least} rows or more" if share == 0 else "learns"
            return f"It {verb}: labels do not cluster {figures}."
        if bool((usual == 1 / len(usual)).all()) and bool(clustering == _START * self.limit):
            return f"It holds: nothing has told yet whether labels cluster {figures}."
        return f"It {'will hold' if share else 'holds'}: labels cluster {figures}."

    def respond(self, state: State, x: Tensor) -> Tensor:
        return self._learner.respond(state, x) if _chooses(state) else state.forward(x)

    def plain(self) -> bool:
        return self._learner.plain()

    def cost(self) -> Cost:
        cost = self._learner.cost()
        return dataclasses.replace(
            cost,
            selected=cost.selected + 1,
            bound=cost.bound + 1,
            per_class=cost.per_class + 1,
            numbers=cost.numbers + 1,
        )


def _counted(model: nn.Module) -> int:
    """How many classes are told apart; places to count them in by turns, where the model does not show how many."""
    try:
        return class_count(model)
    except ValueError:
        return _PLACES


def _chooses(state: State) -> bool:
    """Whether there is anything to choose: else the source answers."""
    return "clustering" in state


def _follow(state: State, share: float) -> None:
    """Let deep layers take the batch's statistics, or none of them."""
    if SHARE in state.table.slots:
        state.table.slots[SHARE].tensor.fill_(share)
