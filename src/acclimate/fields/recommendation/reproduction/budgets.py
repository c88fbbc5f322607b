"""The same multiply-adds spent on a larger model, or on several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from acclimate.experiment.reproduce.part import Grid, Line
from acclimate.fields.recommendation.merging.how import merge_logits
from acclimate.fields.recommendation.reproduction.clock import Clock
from acclimate.fields.recommendation.reproduction.comparing import Found, Judge, added, stacked, subsets
from acclimate.fields.recommendation.reproduction.members import Member, Stock
from acclimate.fields.recommendation.reproduction.study import Scaled

__all__ = ["Point", "equal_line", "points", "scaling_grid"]


@dataclass(frozen=True, slots=True)
class Point:
    """A way to spend compute: `multiply_adds`, `touched` bytes of embeddings and `seconds` a row, one member after the
    other on one thread; `parameters` with embeddings; and what it is worth."""

    model: str
    way: str
    multiply_adds: float
    touched: float
    seconds: float
    parameters: float
    found: Found
    answers: Sequence[Tensor]


def points(
    stock: Stock,
    members: Mapping[str, Sequence[Member]],
    enlarged: Sequence[Scaled],
    bases: Sequence[str],
    judge: Judge,
) -> list[Point]:
    """Of each base: itself, its larger versions, its seeds merged, and it merged with the best of the others."""
    found: list[Point] = []
    clock = Clock(stock)

    def point(model: str, way: str, paid: Sequence[Member], answers: Sequence[Tensor], judge: Judge) -> Point:
        costs = [each.cost for each in paid if each.cost is not None]
        return Point(
            model,
            way,
            multiply_adds=added(paid),
            touched=sum(each.embedding_bytes for each in costs),
            seconds=sum(map(clock.seconds, paid)),
            parameters=sum(each.parameters + each.embedding_parameters for each in costs),
            found=judge.on_test(answers),
            answers=answers,
        )

    for base in bases:
        own = members[base]
        found.append(point(base, "base", own[:1], [each.test for each in own], judge))
        for each in (one for one in enlarged if one.model == base):
            answers = [one.test for one in each.members]
            found.append(point(base, f"{each.kind} x {each.factor:.2g}", each.members[:1], answers, judge))
        for size in range(2, len(own) + 1):
            found.append(point(base, f"{size} seeds merged", own[:size], subsets(own, size), judge))
        others = sorted(
            (name for name in members if name != base),
            key=lambda name: sum(map(judge.validation_loss, members[name])) / len(members[name]),
        )
        for size in (2, 4):
            names = [base, *others[: size - 1]]
            if len(names) < size:
                continue
            rows = [[members[name][seed] for name in names] for seed in range(len(own))]
            merged = [merge_logits(stacked(each)) for each in rows]
            found.append(point(base, f"merged with {', '.join(names[1:])}", rows[0], merged, judge))
    return found


def scaling_grid(name: str, found: Sequence[Point], judge: Judge) -> Grid:
    """A line for each point, with what its first seed gains over the first of its base."""
    base: dict[str, Point] = {each.model: each for each in found if each.way == "base"}
    lines: list[Line] = []
    for each in found:
        origin = base[each.model]
        cells = [f"{each.multiply_adds / origin.multiply_adds:.2f}", f"{each.multiply_adds / 1e3:.1f}"]
        cells += [f"{each.parameters / 1e3:.0f}", f"{each.touched:.0f}", f"{1e6 * each.seconds:.2f}"]
        cells += each.found.cells()
        if each is origin:
            cells += ["-", "-"]
        else:
            gain = judge.gain(each.answers[0], origin.answers[0])
            cells += [str(gain.auc), str(gain.log_loss)]
        lines.append(Line("measured", f"{each.model}, {each.way}", cells))
    head = [
        "compute", "1000 multiply-adds a row", "1000 parameters", "bytes touched a row",
        "ms for 1000 rows", "AUC", "log loss",
        "AUC over the base", "log loss over the base",
    ]  # fmt: skip
    title = f"{name}: compute spent on one model or on several (gains: first seed, 95 % intervals)"
    return Grid(key=f"{name}-scaling", head=head, lines=lines, title=title)


def equal_line(members: Mapping[str, Sequence[Member]], four: Sequence[str], wide: Scaled, judge: Judge) -> Line:
    """The four merged against one of them widened to as many multiply-adds, seed by seed."""
    merged = [merge_logits(stacked([members[name][seed] for name in four])) for seed in range(len(wide.members))]
    gain, each = judge.gains(merged, [single.test for single in wide.members])
    spent = added([members[name][0] for name in four]) / added(wide.members[:1])
    cells = [
        f"{spent:.2f}",
        *judge.on_test([single.test for single in wide.members]).cells(),
        str(gain.auc),
        str(gain.log_loss),
        f"{sum(one.better for one in each)} of {len(each)}",
    ]
    return Line("measured", f"{wide.model}, width x {wide.factor:.2g}", cells)
