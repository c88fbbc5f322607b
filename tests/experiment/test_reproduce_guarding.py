"""The guard's proof: what a trial under guard is, how cells are paired, and what the table makes of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import acclimate
from acclimate.core.method import methods
from acclimate.experiment.reproduce import BENCHMARKS, Outcome, Request, Site, Store, Trial, choose_parts, reproduce
from acclimate.experiment.reproduce.guarded_cells import cell_trials, kept_gain
from acclimate.experiment.reproduce.guarding import Guarding
from acclimate.experiment.reproduce.perform import perform
from acclimate.experiment.reproduce.pictures import paired_error, pooled_error
from acclimate.experiment.reproduce.schedule import Done
from acclimate.guard.default import DefaultGuard
from acclimate.models import load_model
from acclimate.streams import open_stream

KINDS = ("continual", "mixed", "correlated", "sorted", "dynamic", "potpourri+")
REQUEST = Request(benchmark=BENCHMARKS["digits"], model="net", weights="f00d", networks={"net": "f00d"}, size=40)
PICTURES, SHIFTS = 1000, 10


def counted(wrong: Sequence[int], scored: int, **facts: object) -> Outcome:
    told = {"stream": "s", "pictures": {"scored": scored, "wrong": list(wrong)}, **facts}
    return Outcome(segments=[["all", 0]], errors=[100 * sum(wrong) / scored], facts=told)


def spread(errors: int) -> list[int]:
    """So many errors, one after the other on all pictures."""
    return [errors // PICTURES + (place < errors % PICTURES) for place in range(PICTURES)]


class MadeUp:
    """The source errs on 4,000 of 10,000 answers. Tent gains 10 points on `continual`, of which the guard keeps 9, and
    loses 20 on `sorted`, of which 0.5 are left; sar gains 5 and keeps 5; elsewhere both lose 3, and 1.5 under guard."""

    def __init__(self) -> None:
        self.ran: list[Trial] = []

    def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]:
        for trial in trials:
            self.ran.append(trial)
            kind, free = trial.stream.spec.partition(":")[2], trial.guard is None
            name = trial.method.partition(":")[0]
            if name == "source":
                gain = 0.0
            elif kind == "continual":
                gain = {"tent": (10.0, 9.0), "sar": (5.0, 5.0)}[name][not free]
            elif kind == "sorted":
                gain = -20.0 if free else -0.5
            else:
                gain = -3.0 if free else -1.5
            guard = {} if free else {"guard": {"held_share": 0.25, "undone": 7, "forgotten": 1, "forwards": 0.2}}
            yield trial, counted(spread(round(4000 - 100 * gain)), PICTURES * SHIFTS, **guard)


def do(folder: Path, request: Request) -> tuple[MadeUp, dict[str, dict[str, str]]]:
    crew = MadeUp()
    reproduce(choose_parts(paper="guard"), request, Site(model=None), folder, crew=crew, title="The guard")
    rows: dict[str, dict[str, str]] = {}
    for path in sorted((folder / "tables").glob("*.csv")):
        rows |= {f"{path.stem} {row['name']}": row for row in csv.DictReader(path.read_text().splitlines())}
    return crew, rows


def test_what_is_promised_is_counted_from_the_cells(tmp_path: Path) -> None:
    crew, rows = do(tmp_path, replace(REQUEST, methods=("tent", "sar")))
    assert len(crew.ran) == 6 + 2 * 6 * 2
    told = {name.removeprefix("table-guard-claims "): row["in all"] for name, row in rows.items() if "claims" in name}
    assert told["under guard, more than 1 point below the source"] == "8 of 12"
    assert told["without a guard, more than 1 point below"] == "10 of 12"
    assert told["worst cell under guard, points"] == "-1.50"
    assert told["worst cell without a guard, points"] == "-20.00"
    assert told["fewest images in a cell"] == "10,000"
    assert told["gain kept on continual, all of it, %"] == f"{100 * 14 / 15:.1f}"
    assert told["gain kept on continual, mean of methods, %"] == "95.0"
    assert told["answers held at the source on every stream, %"] == "25.0"
    guarded, free = rows["table-guard-under-guard-net tent"], rows["table-guard-without-a-guard-net tent"]
    assert [float(guarded[kind]) for kind in KINDS] == pytest.approx([9.0, -1.5, -1.5, -0.5, -1.5, -1.5])
    assert [float(free[kind]) for kind in KINDS] == pytest.approx([10.0, -3.0, -3.0, -20.0, -3.0, -3.0])
    assert float(rows["table-guard-held-net tent"]["sorted"]) == 25.0
    cell = rows["table-guard-cells tent on sorted, net"]
    assert (float(cell["difference"]), cell["pictures"], float(cell["undone"])) == (pytest.approx(0.5), "1,000", 7.0)
    assert float(cell["low"]) <= 0.5 <= float(cell["high"])
    page = (tmp_path / "reproduce.html").read_text()
    assert page.count('class="bad">-20.0<') == 2 and "tent on sorted, net" in page
    text = (tmp_path / "reproduce.md").read_text()
    assert "**-20.0**" in text and "tent on sorted, net" not in text and f"trust {DefaultGuard().trust}" in text
    for picture in ("guard-net", "guard-none-net", "guard-held-net"):
        assert (tmp_path / f"figures/{picture}.png").stat().st_size > 1000


def test_a_guard_is_part_of_a_trial_and_old_trials_keep_their_names() -> None:
    (trial,) = REQUEST.trials("tent")
    assert trial.key == "tent-412e9bac96b12341274a"
    ours, others = (replace(trial, guard=guard) for guard in ("default", DefaultGuard(trust=0.2)))
    assert len({trial.key, ours.key, others.key, replace(trial, pictures=True).key}) == 4
    assert ours.key.startswith("tent+default-") and ours.identity()["guard"]["trust"] == DefaultGuard().trust
    assert "under default(trust=0.2)" in others.label
    with pytest.raises(ValueError, match="no guard"):
        replace(REQUEST, guard="none")


def test_all_methods_on_the_digits_and_a_dozen_elsewhere(tmp_path: Path) -> None:
    def names(benchmark: str) -> set[str]:
        request = replace(REQUEST, benchmark=BENCHMARKS[benchmark])
        return {trial.method.partition(":")[0] for trial in Guarding().wanted(request, Store(tmp_path), {})}

    assert names("digits") == set(methods.classes())
    assert {"source", "bn", "tent", "palm", "eata", "sar", "rotta", "lame", "roid", "cotta", "deyo"} <= names("cifar10")


def test_gain_is_kept_of_what_gains(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert kept_gain([]) is None
    free, guarded = cell_trials(REQUEST, "tent", "sorted", "net")
    assert free[0].guard is None and guarded[0].guard == "default" and free[0].pictures
    assert store.all(guarded) is None


def test_pairs_are_by_picture_over_seeds_and_the_interval_is_that_of_a_mean() -> None:
    """Against the closed form: over many pictures the interval of a sum is normal, 1.96 standard errors to a side."""
    random = np.random.default_rng(0)
    ours, theirs = (
        [counted(random.integers(0, SHIFTS, PICTURES).tolist(), PICTURES * SHIFTS) for _ in range(2)] for _ in "ab"
    )
    found = paired_error(ours, theirs)
    counts = [[np.array(o.facts["pictures"]["wrong"]) for o in outcomes] for outcomes in (ours, theirs)]
    each = np.sum([mine - other for mine, other in zip(*counts, strict=True)], axis=0) * 100 / (2 * PICTURES * SHIFTS)
    half = 1.96 * each.std() * np.sqrt(PICTURES)
    assert found.mean == pytest.approx(each.sum())
    assert found.mean == pytest.approx(pooled_error(ours) - pooled_error(theirs))  # pyright: ignore[reportOperatorIssue]
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    assert (found.images, found.pictures) == (2 * PICTURES * SHIFTS, PICTURES)
    with pytest.raises(ValueError, match="same pictures"):
        paired_error(ours[:1], [counted([1, 2], 20)])


def test_a_real_trial_counts_pictures_and_what_the_guard_did() -> None:
    """Tent under guard on a few digits: counts by picture and the held share are those of a loop by hand."""
    request = replace(REQUEST, size=6, batch_size=30, networks={"digits-resnet": "x"})
    _, (trial,) = cell_trials(request, "tent", "mixed", "digits-resnet")
    outcome = perform(trial, Site(model=None))
    adapted = acclimate.adapt(load_model("digits-resnet"), "tent", guard="default")
    wrong: dict[int, int] = {}
    held = total = 0
    for batch in open_stream("digits:mixed", size=6, batch_size=30):
        flags = adapted(batch.images).argmax(1) != batch.labels
        for place, flag in zip(batch.index.tolist(), flags.tolist(), strict=True):
            wrong[place] = wrong.get(place, 0) + flag
        assert adapted.last is not None
        held, total = held + adapted.last.held, total + len(flags)
    assert outcome.facts["pictures"] == {"scored": total, "wrong": [wrong[place] for place in sorted(wrong)]}
    assert pooled_error([outcome]) == pytest.approx(outcome.mean_error())
    assert outcome.facts["guard"]["held_share"] == pytest.approx(held / total)
    assert outcome.facts["guard"]["undone"] == adapted.tally["undone"]
    assert 0 < outcome.facts["guard"]["forwards"] <= 2 * 16 / 30 + 1e-9
    assert torch.is_grad_enabled()
