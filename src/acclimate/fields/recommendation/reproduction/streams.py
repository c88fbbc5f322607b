"""Streams that drift: of test rows with a field that fails, and of made rows whose chances come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from acclimate.fields.recommendation.data.clicks import Clicks, joined
from acclimate.fields.recommendation.data.planted import PlantedClicks, planted
from acclimate.fields.recommendation.data.splits import Split
from acclimate.fields.recommendation.measuring.scores import log_losses
from acclimate.fields.recommendation.merging.choosing import fit_weights
from acclimate.fields.recommendation.reproduction.drifting import Drifted
from acclimate.fields.recommendation.reproduction.members import Member, Order, Stock, Told
from acclimate.fields.recommendation.reproduction.study import Study
from acclimate.fields.recommendation.training.learning import answers

__all__ = ["broken", "broken_stream", "drifted", "planted_drift"]

_PERIODS = 3


def broken(rows: Clicks, field: int) -> Clicks:
    """The rows with one field not known: its out-of-vocabulary id."""
    ids = rows.ids.clone()
    ids[:, field] = rows.offsets[field] + rows.sizes[field] - 1
    return replace(rows, ids=ids)


def broken_stream(rows: Clicks, field: int, seed: int = 0) -> Clicks:
    """Rows in a drawn order, in three parts.

    As they are; with a field that is no longer delivered; delivered again, and half of the rows that were not clicked
    left out, so that the share clicked rises.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = rows.take(torch.randperm(len(rows), generator=generator))
    third = len(rows) // 3
    before, during, after = (rows.take(torch.arange(third) + part * third) for part in range(3))
    kept = (after.labels == 1) | (torch.rand(len(after), generator=generator) < 0.5)
    return joined([before, broken(during, field), after.take(kept)])


def drifted(
    stock: Stock, study: Study, members: Mapping[str, Sequence[Member]], four: Sequence[str], told: Told | None
) -> Drifted:
    """The four, and the first of them trained without the field that it needs most, on `broken_stream`.

    The latter at the rate and decay that suit it best without that field.
    """
    split, own = stock.split, [members[name][0] for name in four]
    models = [stock.model(each.order) for each in own]
    field = _needed(models[0], split.validation)
    without = Stock(
        stock.folder.parent,
        f"{stock.name}-without-{field}",
        Split(broken(split.train, field), broken(split.validation, field), split.test),
    )
    (spare,) = study.suited(without, [own[0].order], told)
    models.append(without.model(spare))
    stream = broken_stream(split.test, field)
    validation = torch.stack([answers(each, split.validation).double() for each in models])
    name = f"{four[0]} without {split.test.fields[field]}"
    return Drifted(
        names=[*four, name],
        each=torch.stack([answers(each, stream).double() for each in models]),
        labels=stream.labels,
        weights=fit_weights(validation, split.validation.labels),
    )


def _needed(model: nn.Module, rows: Clicks) -> int:
    """The field without which the log loss is highest."""
    labels = rows.labels.double().numpy()
    losses = [
        log_losses(answers(model, broken(rows, field)).double().numpy(), labels).mean()
        for field in range(len(rows.fields))
    ]
    return int(torch.tensor(losses).argmax())


def planted_drift(folder: Path, study: Study, told: Told | None) -> tuple[Drifted, float]:
    """Three kinds of chances that follow each other and come again: a member for each, and one for all.

    And the log loss of the true chances on the stream.
    """
    period, short = study.planted, study.planted // 4
    learned, streamed = period * _PERIODS, short * _PERIODS
    turns = [*range(period, learned + 1, period), *range(learned + short, learned + streamed, short)]
    made = planted(learned + streamed, drift=turns, angle=360 / _PERIODS, second=1.5, bias=-1.0)
    stream = made.clicks.take(torch.arange(learned, learned + streamed))
    bayes = PlantedClicks(stream, made.probability[learned:]).log_loss
    periods = [made.clicks.take(torch.arange(period) + part * period) for part in range(_PERIODS)]
    parts = {f"of period {number}": rows for number, rows in enumerate(periods, 1)} | {
        "of all periods": joined(periods)
    }
    found: list[Tensor] = []
    held: list[Tensor] = []
    last = _apart(periods[-1])[1]
    for name, rows in parts.items():
        train, validation = _apart(rows)
        stock = Stock(folder, f"planted-{name.replace(' ', '-')}", Split(train, validation, stream))
        plain = Order(model="fnn", options={"dropout": 0.0}, recipe=study.recipe)
        (order,) = study.suited(stock, [plain], told)
        (member,) = stock.have([order], jobs=study.jobs, told=told)
        found.append(member.test)
        held.append(answers(stock.model(order), last).double())
    return Drifted(list(parts), torch.stack(found), stream.labels, fit_weights(torch.stack(held), last.labels)), bayes


def _apart(rows: Clicks) -> tuple[Clicks, Clicks]:
    """Every tenth row is for validation."""
    place = torch.arange(len(rows)) % 10
    return rows.take(place != 0), rows.take(place == 0)
