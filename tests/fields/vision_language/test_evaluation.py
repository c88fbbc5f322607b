"""Answers counted by hand, and an oracle that is nothing but a search over weights, kept out of everything else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import acclimate.fields.vision_language as field
from acclimate.fields.vision_language import (
    Features,
    Outcome,
    adapt,
    evaluate,
    evaluate_methods,
    oracle_weights,
    registry,
    transfer,
)
from acclimate.fields.vision_language.features import FeatureBatch
from acclimate.fields.vision_language.lineup import ORACLE, ROWS, TRANSFER, chosen_rows, fitted
from acclimate.fields.vision_language.methods.boostadapter import BoostAdapter
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.methods.tda import TDA
from acclimate.fields.vision_language.oracle import GRID, WeightGrid
from acclimate.streams.segments import CLEAN

from .world import world


def drawn(seed: int = 0, **options: Any) -> Features:
    made = world(seed, **{"images": 60, "classes": 6, "views": 2, **options})
    return Features(
        clip=made.views, text=made.texts, logit_scale=made.scale, auxiliary=made.auxiliary, labels=made.labels,
        name=f"world {seed}",
    )  # fmt: skip


def counted(answers: list[int], labels: list[int], classes: int = 3) -> Features:
    """Features whose zero-shot answers are these."""
    eye = torch.eye(classes)
    return Features(clip=eye[answers], text=eye, logit_scale=10.0, labels=torch.tensor(labels))


def stored(features: Features, batch_size: int = 4) -> Iterator[FeatureBatch]:
    return features.batches(batch_size=batch_size, seed=None)


def test_a_stream_that_is_counted_by_hand():
    """Right are rows 0, 2, 3, 5 and 6 of seven; of the last half, rows 3 to 6, the last three are 5, 6 and 3."""
    given = counted([0, 1, 2, 0, 1, 2, 0], [0, 0, 2, 0, 0, 2, 0])
    told: list[int] = []
    found = evaluate(adapt(given.model(), method="zero-shot"), stored(given), progress=told.append)
    assert told == [4, 7] and found.milliseconds > 0
    assert replace(found, milliseconds=0.0) == Outcome(
        images=7, scored=7, correct=5, top1=500 / 7, late=75.0, per_class=(60.0, None, 100.0), milliseconds=0.0, held=0
    )


def test_images_without_a_label_are_answered_and_not_counted():
    given = counted([0, 1, 2, 0], [0, -1, -1, 1])
    found = evaluate(adapt(given.model(), method="zero-shot"), stored(given))
    assert (found.images, found.scored, found.correct, found.top1, found.late) == (4, 2, 1, 50.0, 0.0)
    assert found.per_class == (100.0, 0.0, None)


def test_rows_that_the_source_had_to_answer_are_told():
    given = counted([0, 1, 2, 0], [0, 1, 2, 0])
    (batch,) = stored(given)
    images = batch.images.clone()
    images[1] = float("nan")
    found = evaluate(adapt(given.model(), method="zero-shot"), [replace(batch, images=images)])
    assert found.held == 1 and found.images == 4


def test_streams_that_cannot_be_scored():
    given = counted([0, 1], [0, 1])
    adapted = adapt(given.model(), method="zero-shot")
    unknown = Features(clip=given.clip, text=given.text)
    (batch,) = stored(given)
    beyond = replace(batch, labels=torch.tensor([0, 3]))
    for batches, told in [
        ([], "no known label in 0 images"),
        (unknown.batches(), "no known label in 2"),
        ([beyond], "labels up to 3 for 3 classes"),
    ]:
        with pytest.raises(ValueError, match=told):
            evaluate(adapted, batches)
    with pytest.raises(ValueError, match="an oracle knows nothing but labels"):
        oracle_weights(unknown.model(), unknown.batches(), COSMIC(weights=(1.0, 1.0, 0.0)))


def test_any_stream_of_images_can_be_evaluated():
    """Batches of the library's own streams have no auxiliary features, and need none."""
    images = torch.eye(12)[:3].view(3, 3, 2, 2)
    model = field.VisionLanguage(torch.nn.Flatten(), torch.eye(12)[:4], logit_scale=10.0)
    batch = acclimate_batch(images, torch.tensor([0, 1, 3]))
    assert evaluate(adapt(model, method="zero-shot"), [batch]).correct == 2


def acclimate_batch(images: Tensor, labels: Tensor) -> Any:
    from acclimate.streams.stream import Batch

    return Batch(images, labels, torch.arange(len(images)), CLEAN, 0)


def test_methods_by_seeds():
    given = drawn()
    told: list[tuple[str, int, int]] = []
    found = evaluate_methods(
        given.model(),
        lambda seed: given.batches(seed=seed, batch_size=30),
        {"none": "zero-shot", "tda": TDA(places=2)},
        seeds=(0, 5),
        progress=lambda *step: told.append(step),
    )
    assert told == [(label, seed, n) for label in ("none", "tda") for seed in (0, 5) for n in (30, 60)]
    assert set(found) == {"none", "tda"} and len(found["tda"]) == 2
    assert found["none"][0].top1 == found["none"][1].top1, "what keeps nothing does not mind the order"
    for number, seed in enumerate((0, 5)):
        alone = evaluate(adapt(given.model(), method=TDA(places=2), seed=seed), given.batches(seed=seed))
        assert replace(alone, milliseconds=0.0) == replace(found["tda"][number], milliseconds=0.0)
    assert set(evaluate_methods(given.model(), lambda seed: given.batches(), ["zero-shot"])) == {"zero-shot"}
    for methods, seeds in (("tda", (0,)), (["tda"], ())):
        with pytest.raises(ValueError, match="expected a list of each"):
            evaluate_methods(given.model(), lambda seed: given.batches(), methods, seeds=seeds)


SMALL = COSMIC(places=2, auxiliary_places=2, refresh=7)


def test_the_oracle_is_a_search_over_weights():
    """Every count of the grid is that of a pass with these weights alone, from answers to labels."""
    given = drawn(images=24)
    grid = oracle_weights(given.model(), given.batches(seed=3, batch_size=5), SMALL)
    assert grid.scored == 24 and len(grid.correct) == len(GRID) == 14
    for (i, clip), (j, auxiliary) in itertools.product(list(enumerate(GRID))[::3], list(enumerate(GRID))[1::4]):
        method = replace(SMALL, weights=(1.0, clip, auxiliary))
        found = evaluate(adapt(given.model(), method=method), given.batches(seed=3, batch_size=24))
        assert grid.correct[i][j] == found.correct, (clip, auxiliary)
        assert grid.top1((1.0, clip, auxiliary)) == found.top1
    without = replace(SMALL, weights=(1.0, 1.0, 0.0))
    found = evaluate(adapt(given.model(), method=without), given.batches(seed=3))
    assert grid.top1((1.0, 1.0, 0.0)) == found.top1, "the weight 0 is a model without a second encoder"
    best = max(count for row in grid.correct for count in row)
    assert grid.top1(grid.best) == 100 * best / 24 >= grid.top1((1.0, 1.0, 1.0))


def test_the_oracle_without_a_second_encoder():
    given = drawn(images=24)
    grid = oracle_weights(given.model(), given.batches(seed=3), replace(SMALL, weights=(1.0, 1.0, 0.0)))
    whole = oracle_weights(given.model(), given.batches(seed=3), SMALL)
    assert all(len(set(row)) == 1 for row in grid.correct)
    assert [row[0] for row in grid.correct] == [row[0] for row in whole.correct]


def test_of_many_best_weights_the_oracle_takes_the_nearest_to_one():
    one = GRID.index(1.0)
    rows = [[3] * 14 for _ in range(14)]
    assert WeightGrid(tuple(map(tuple, rows)), 4).best == (1.0, 1.0, 1.0)
    rows[one + 2][one], rows[one][one - 1] = 4, 4
    grid = WeightGrid(tuple(map(tuple, rows)), 4)
    assert grid.best == (1.0, 1.0, 0.3) and grid.top1(grid.best) == 100 and grid.top1((1.0, 10.0, 1.0)) == 100
    for weights in ((1.0, 2.0, 1.0), (0.5, 1.0, 1.0)):
        with pytest.raises(ValueError, match=r"expected 1 and two of 0, 0\.001"):
            grid.top1(weights)


def test_transfer_takes_the_weights_of_another_stream():
    first, second = drawn(0, images=40), drawn(1, images=40, noise=1.2)
    one, other = (oracle_weights(each.model(), each.batches(), SMALL) for each in (first, second))
    method = replace(SMALL, weights=one.best)
    assert transfer(one, other) == evaluate(adapt(second.model(), method=method), second.batches()).top1
    assert transfer(one, other) <= other.top1(other.best)


def test_rows_that_were_held_count_as_they_were_answered():
    given = drawn(images=12)
    batches = list(given.batches(batch_size=6))
    batches[0].images[2] = float("nan")
    grid = oracle_weights(given.model(), batches, SMALL)
    rest = oracle_weights(given.model(), batches[1:], SMALL)
    assert grid.scored == 12 and rest.scored == 6
    source = given.model()(batches[0].images)
    low = min(count for row in grid.correct for count in row) - max(count for row in rest.correct for count in row)
    assert low <= 6 and source.shape == (6, 6)
    spread = max(map(max, grid.correct)) - min(map(min, grid.correct))
    assert spread <= 6, "the weights decide about the second batch alone"


@pytest.mark.parametrize("name", ["zero-shot", "tda", "boostadapter", "dmn", "zero", "cosmic"])
def test_labels_change_no_answer(name: str):
    """The same stream with other labels is answered the same: per-class counts say what was answered."""
    given = drawn()
    answers: list[Tensor] = []
    for labels in (given.labels, torch.zeros_like(given.labels)):
        other = replace(given, labels=labels)
        adapted = adapt(other.model(), method=registry.build(name))
        kept: list[Tensor] = []
        adapted.register_forward_hook(lambda module, given, output, kept=kept: kept.append(output))
        evaluate(adapted, other.batches(batch_size=20))
        answers.append(torch.cat(kept))
    assert torch.equal(*answers)


def test_no_method_and_no_way_in_knows_the_oracle():
    """What answers does not import it; what measures may."""
    folder = Path(field.__file__).parent
    for part in ("methods", "graph", "data", "texts", "encoders", "model.py", "method.py", "entry.py", "lineup.py"):
        for path in (folder / part).rglob("*.py") if (folder / part).is_dir() else [folder / part]:
            assert "vision_language.oracle" not in path.read_text(), path
    assert COSMIC().weights == (1.0, 1.0, 1.0) and not any("oracle" in name for name in registry.classes())
    assert not any("oracle" in preset for preset in COSMIC.presets)


def test_the_lineup_fits_methods_to_data_sets():
    assert list(chosen_rows()) == list(ROWS) and {ORACLE, TRANSFER} < set(ROWS)
    assert [row.key for row in ROWS.values() if row.labelled] == [ORACLE, TRANSFER]
    assert (
        "ORACLE" in ROWS[ORACLE].title and chosen_rows(["cosmic", "tip-adapter"])["tip-adapter"].title == "tip-adapter"
    )
    with pytest.raises(ValueError, match="no vision-language method 'cosmos'"):
        chosen_rows(["cosmos"])
    for row in ROWS.values():
        for name in field.DATASETS:
            method = fitted(row.method, name)
            if isinstance(method, COSMIC):
                assert method.weights == row.method.weights  # type: ignore[attr-defined]
    cosmic, boost, tda = COSMIC(), BoostAdapter(), TDA()
    assert fitted(cosmic, "dtd") == replace(cosmic, alpha=2.0, beta=3.0)
    assert fitted(cosmic, "imagenet-r") == COSMIC(alpha=1.0, beta=8.0, places=16, auxiliary_places=16, refresh=100)
    paper = COSMIC.preset("paper")
    told = {name: fitted(paper, name) for name in ("imagenet-sketch", "dtd", "pets", "cars")}
    assert told["dtd"] == replace(paper, alpha=2.0, beta=3.0, level=0.7, auxiliary_level=0.07)
    assert told["pets"] == replace(paper, alpha=2.0, beta=7.0, level=0.69, auxiliary_level=0.2)
    assert told["cars"] == replace(paper, alpha=1.0, beta=7.0, level=0.85, auxiliary_level=0.5)
    sketch = {
        "alpha": 2.363,
        "beta": 7.45,
        "level": 0.85,
        "auxiliary_level": 0.52,
        "places": 16,
        "auxiliary_places": 16,
    }
    assert told["imagenet-sketch"] == replace(paper, **sketch) and told["imagenet-sketch"].refresh == 50
    assert fitted(boost, "imagenet") == replace(boost, views=1, averaged=False)
    assert fitted(boost, "imagenet-sketch") == replace(boost, alpha=2.363, beta=7.45, boost=1, averaged=True)
    assert fitted(boost, "cars") == replace(boost, alpha=1.0, beta=7.0, boost=3, averaged=False)
    assert fitted(tda, "imagenet-a").views == 64 and fitted(tda, "imagenet").views == 1  # type: ignore[attr-defined]
    zero = registry.build("zero")
    assert fitted(zero, "dtd") is zero


def test_the_oracle_is_told_settings_and_not_a_name():
    features = drawn()
    with pytest.raises(ValueError, match="found 'cosmic', expected COSMIC with settings"):
        oracle_weights(features.model(), features.batches(), "cosmic")  # type: ignore[arg-type]
