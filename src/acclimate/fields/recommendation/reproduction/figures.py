"""What a budget buys, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from acclimate.experiment.plots.style import INK, blank, colours
from acclimate.fields.recommendation.measuring.diversity import diversity
from acclimate.fields.recommendation.reproduction.budgets import Point
from acclimate.fields.recommendation.reproduction.comparing import Judge, deviation, stacked, subsets
from acclimate.fields.recommendation.reproduction.members import Member

__all__ = ["budget_figure", "diversity_figure", "seeds_figure"]

_KINDS = {
    "width": "wider",
    "depth": "deeper",
    "embedding": "wider embedding",
    "seeds": "seeds merged",
    "with": "models merged",
}


def budget_figure(found: Sequence[Point], model: str, number: str) -> Figure:
    """AUC or log loss of a model's points against multiply-adds; bars are a deviation over seeds or subsets."""
    own = [each for each in found if each.model == model]
    base = next(each for each in own if each.way == "base")
    figure, axes = blank(5.4, 3.6)
    palette = colours(list(_KINDS.values()))
    for word, label in _KINDS.items():
        line = [base, *(each for each in own if word in each.way.split())]
        if len(line) < 2:
            continue
        line.sort(key=lambda each: each.multiply_adds)
        values = [each.found.aucs if number == "AUC" else each.found.losses for each in line]
        means = [sum(each) / len(each) for each in values]
        spread = [deviation(each) for each in values]
        merged = "merged" in label
        axes.errorbar(
            [each.multiply_adds / 1e3 for each in line], means, yerr=spread, label=label, color=palette[label],
            marker="o", markersize=4, linewidth=2 if merged else 1.2, linestyle="-" if merged else "--", capsize=2,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("1000 multiply-adds a row")
    axes.set_ylabel(number)
    axes.set_title(model, color=INK)
    axes.legend(frameon=False, fontsize=8)
    return figure


def seeds_figure(members: Mapping[str, Sequence[Member]], judge: Judge, number: str) -> Figure:
    """AUC or log loss of k seeds of a model merged, against k."""
    figure, axes = blank(5.4, 3.6)
    palette = colours(list(members))
    for model, own in members.items():
        found = [judge.on_test(subsets(own, size)) for size in range(1, len(own) + 1)]
        values = [each.auc if number == "AUC" else each.loss for each in found]
        axes.plot(range(1, len(own) + 1), values, marker="o", markersize=4, label=model, color=palette[model])
    axes.set_xticks(range(1, len(next(iter(members.values()))) + 1))
    axes.set_xlabel("seeds merged")
    axes.set_ylabel(number)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def diversity_figure(members: Mapping[str, Sequence[Member]], judge: Judge) -> Figure:
    """What a pair gains in log loss over the mean of both, against how little they correlate."""
    figure, axes = blank(5.4, 3.6)
    names = list(members)
    labels = judge.test.numpy()
    same = [diversity(stacked(own[:2]).numpy(), labels) for own in members.values()]
    other = [
        diversity(stacked([members[a][0], members[b][0]]).numpy(), labels)
        for place, a in enumerate(names)
        for b in names[place + 1 :]
    ]
    for pairs, label, colour in ((other, "two models", "#d55e00"), (same, "two seeds of a model", "#0072b2")):
        axes.scatter(
            [1 - each.correlation for each in pairs], [each.gain for each in pairs], s=18, label=label, color=colour
        )
    axes.set_xlabel("1 - correlation of logits")
    axes.set_ylabel("gain in log loss over the mean of both")
    axes.legend(frameon=False, fontsize=8)
    return figure
