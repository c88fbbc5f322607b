"""Merging on one data set: the models, what their merging gains, and what does not help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from acclimate.experiment.reproduce.part import Grid, Line
from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.measuring.diversity import diversity
from acclimate.fields.recommendation.merging.choosing import fit_weights, greedy
from acclimate.fields.recommendation.merging.controls import (
    averaged_weights,
    dropout_draws,
    field_masks,
    noise_draws,
)
from acclimate.fields.recommendation.merging.how import merge_logits
from acclimate.fields.recommendation.models.ranker import Ranker
from acclimate.fields.recommendation.models.registry import option_names
from acclimate.fields.recommendation.reproduction.comparing import Judge, stacked, subsets
from acclimate.fields.recommendation.reproduction.members import Member, Order, Stock, Told
from acclimate.fields.recommendation.reproduction.study import Study
from acclimate.fields.recommendation.training.learning import answers

__all__ = ["best_four", "controls", "merged_grid", "models_grid", "trained_as_one"]

_DRAWS = 64
_CONTROLLED = ("fnn", "deepfm", "dcn", "ipnn")


def best_four(members: Mapping[str, Sequence[Member]], judge: Judge) -> list[str]:
    """The four models of the least mean validation log loss."""
    losses = {name: sum(map(judge.validation_loss, each)) / len(each) for name, each in members.items()}
    return sorted(losses, key=losses.__getitem__)[:4]


def models_grid(name: str, members: Mapping[str, Sequence[Member]], judge: Judge) -> Grid:
    """Each model alone, and its seeds merged."""
    lines: list[Line] = []
    for model, each in members.items():
        cost = each[0].cost
        assert cost is not None
        alone, merged = judge.on_test([one.test for one in each]), judge.on_test(subsets(each, len(each)))
        spread = diversity(stacked(each).numpy(), judge.test.numpy())
        cells = [
            *alone.cells(),
            f"{merged.auc:.4f}",
            f"{merged.loss:.4f}",
            f"{spread.correlation:.4f}",
            f"{each[0].order.recipe.learning_rate:g}",
            f"{each[0].order.recipe.weight_decay:g}",
            f"{cost.multiply_adds / 1e3:.1f}",
            f"{cost.parameters / 1e3:.1f}",
            f"{cost.embedding_parameters * 4 / 1e6:.2f}",
            str(cost.embedding_bytes),
            f"{sum(one.seconds for one in each) / len(each):.1f}",
        ]
        lines.append(Line("measured", model, cells))
    count = len(next(iter(members.values())))
    head = [
        "AUC", "log loss", f"AUC, {count} seeds merged", "log loss, merged", "correlation", "rate", "decay",
        "1000 multiply-adds a row", "1000 parameters", "MB of embeddings", "bytes touched a row", "seconds to train",
    ]  # fmt: skip
    return Grid(key=f"{name}-models", head=head, lines=lines, title=f"{name}: models, and their own seeds merged")


def merged_grid(name: str, members: Mapping[str, Sequence[Member]], judge: Judge, groups: Sequence[Member]) -> Grid:
    """Ways to merge, seed by seed, against the member that is best on validation rows."""
    four = best_four(members, judge)
    seeds = range(len(next(iter(members.values()))))
    at = [[members[model][seed] for model in four] for seed in seeds]
    every = [[each[seed] for each in members.values()] for seed in seeds]
    chosen = [greedy(stacked(each, "validation"), judge.validation) for each in every]
    rows: dict[str, tuple[list[Tensor], list[list[Member]]]] = {
        f"four ({', '.join(four)})": ([merge_logits(stacked(each)) for each in at], at),
        "four, mean of probabilities": ([merge_logits(stacked(each), "prob_mean") for each in at], at),
        "four, weights fitted": (
            [
                merge_logits(stacked(each), weights=fit_weights(stacked(each, "validation"), judge.validation))
                for each in at
            ],
            at,
        ),
        "all models": ([merge_logits(stacked(each)) for each in every], every),
        "greedy among all": (
            [merge_logits(stacked(each)[places]) for each, places in zip(every, chosen, strict=True)],
            every,
        ),
    }
    if groups:
        rows["four, trained as one"] = ([each.test for each in groups], at)
    lines = [Line("measured", row, _row(found, against, judge)) for row, (found, against) in rows.items()]
    pooled = [one for each in at for one in each]
    whole = merge_logits(stacked(pooled))
    lines.append(Line("measured", f"four, all {len(seeds)} seeds", _row([whole], [pooled], judge)))
    head = ["AUC", "log loss", "AUC over the best member", "log loss over the best", "seeds better in both"]
    title = f"{name}: merged models, and the mean gain over the best member (95 % intervals of that mean)"
    return Grid(key=f"{name}-merged", head=head, lines=lines, title=title)


def _row(found: Sequence[Tensor], against: Sequence[Sequence[Member]], judge: Judge) -> list[str]:
    (by_auc, each_auc), (by_loss, each_loss) = judge.over_best(found, against)
    better = sum(a.auc.low > 0 and b.log_loss.high < 0 for a, b in zip(each_auc, each_loss, strict=True))
    return [
        *judge.on_test(found).cells(),
        str(by_auc.auc),
        str(by_loss.log_loss),
        f"{better} of {len(found)}",
    ]


def controls(name: str, stock: Stock, members: Mapping[str, Sequence[Member]], judge: Judge) -> Grid:
    """Diversity that means nothing: fields masked, noise, dropout, averaged weights; of the first seed."""
    rows: Clicks = stock.split.test
    lines: list[Line] = []
    for model in [each for each in _CONTROLLED if each in members]:
        own = members[model]
        ranker = stock.model(own[0].order)
        assert isinstance(ranker, Ranker)
        average = own[0].order.build(stock.split.train.sizes)
        average.load_state_dict(averaged_weights([stock.model(each.order).state_dict() for each in own]))
        found = {
            "alone": own[0].test,
            "seeds merged": merge_logits(stacked(own)),
            "one field each, mean": merge_logits(field_masks(ranker, rows.ids).double()),
            "one field each, max": merge_logits(field_masks(ranker, rows.ids).double(), "max"),
            f"noise, {_DRAWS} draws": merge_logits(noise_draws(ranker, rows.ids, draws=_DRAWS).double()),
            f"dropout and noise, {_DRAWS} draws": merge_logits(dropout_draws(ranker, rows.ids, draws=_DRAWS).double()),
            "weights of seeds averaged": answers(average, rows).double(),
        }
        scored = {row: judge.on_test([each]) for row, each in found.items()}
        lines += [
            Line("measured", f"{model}, {row}", [f"{each.auc:.4f}", f"{each.loss:.4f}"]) for row, each in scored.items()
        ]
    return Grid(key=f"{name}-controls", head=["AUC", "log loss"], lines=lines, title=f"{name}: controls")


def trained_as_one(stock: Stock, study: Study, four: Sequence[str], told: Told | None) -> list[Member]:
    """The four trained as one model, for each seed, at the rate and decay that suit it best."""
    options = {key: value for key, value in study.options.items() if any(key in option_names(name) for name in four)}
    order = Order(model="+".join(four), recipe=study.recipe, options=options)
    return study.seeded(stock, [order], told)[0]
