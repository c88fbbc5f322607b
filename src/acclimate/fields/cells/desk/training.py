"""Training at the desk: an encoder from all laboratories, a classifier from the labelled cells, a fifth kept back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from acclimate.fields.cells.classify.classifiers import Classifier, build
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.desk.calibration import Calibration, calibrated, easier, held_out
from acclimate.fields.cells.desk.checking import check_teachable
from acclimate.fields.cells.desk.model import CellModel, digests
from acclimate.fields.cells.desk.opening import counted, relabelled
from acclimate.fields.cells.desk.seeing import sighted
from acclimate.fields.cells.pipeline import Stage, train_encoder
from acclimate.fields.cells.plan import Plan

__all__ = ["train"]


def train(
    laboratories: Sequence[Laboratory],
    plan: Plan,
    folder: str | Path,
    *,
    classifier: str = "logistic",
    error: float = 0.05,
    most: int = 2000,
    progress: Stage | None = None,
) -> CellModel:
    """Train and write a model into a folder, which keeps the stages of the training in `stages`, too.

    The encoder learns from all laboratories without labels. A fifth of the labelled cells of each class is held out to
    calibrate temperature and threshold; the classifier is fitted on the rest, of all laboratories together.

    Arguments:
        laboratories: at least one with masks, at least one with labels.
        plan: of the encoder; its seed also draws who is held out.
        folder: where to write.
        classifier: one of `CLASSIFIERS`.
        error: share of the sure answers that may be wrong.
        most: cells of a laboratory that the encoder learns from; with more, so many are drawn, those with masks first.
        progress: told what is done, how much of it, of how much.

    Raises ValueError for fewer than two classes, too few labelled cells, no masks at all, and an unknown classifier.
    """
    target = Path(folder).expanduser()
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file; expected a folder for the model.")
    if not 0 < error < 1:
        raise ValueError(f"error is {error}; expected a share between 0 and 1, such as 0.05.")
    fresh = _savable(build(classifier, seed=plan.seed))
    own = _together(laboratories)
    check_teachable(own)
    some = [_at_most(each, most, plan.seed) for each in own]
    encoder = train_encoder(some, plan, target / "stages", progress=progress)
    codes = torch.cat(
        [sighted(encoder, each, progress=counted(f"codes of {each.name}", progress)).codes for each in own]
    )
    labels = torch.cat([each.labels for each in own])
    held = held_out(labels, plan.seed)
    rest = ~held & (labels != UNKNOWN)
    fresh.fit(codes[rest], labels[rest])
    said = fresh.probabilities(codes[held], len(own[0].classes))
    found = calibrated(said, labels[held], error)
    known = [word for each in own for word in digests(each.images)]
    fitted, kept = (frozenset(known[place] for place in which.nonzero()[:, 0].tolist()) for which in (rest, held))
    right = int((torch.from_numpy(fresh.predict(codes[held])) == labels[held]).sum())
    taught: dict[str, Any] = {
        "laboratories": [_told(each) for each in own],
        "held_out": {"cells": int(held.sum()), "right": right},
        "notes": [*fresh.notes, *_notes(own, found, said, labels[held])],
    }
    model = CellModel(encoder, fresh, own[0].classes, found.temperature, found.threshold, taught, fitted, kept - fitted)
    model.save(target)
    return model


def _savable(classifier: Classifier) -> Classifier:
    if classifier.name == "boosting" and classifier.family != "xgboost":
        raise ValueError("boosting without xgboost cannot be saved. Install xgboost, or choose --classifier forest.")
    return classifier


def _together(laboratories: Sequence[Laboratory]) -> list[Laboratory]:
    """All with labels that count in the same classes: those that have cells anywhere."""
    names = dict.fromkeys(
        name for each in laboratories for label, name in enumerate(each.classes) if bool((each.labels == label).any())
    )
    return [relabelled(each, tuple(names)) for each in laboratories]


def _at_most(laboratory: Laboratory, most: int, seed: int) -> Laboratory:
    if len(laboratory) <= most:
        return laboratory
    drawn = torch.randperm(len(laboratory), generator=Generator().manual_seed(seed))
    first = drawn[(~laboratory.masked[drawn]).to(torch.int8).argsort(stable=True)]
    return laboratory.take(first[:most].sort().values)


def _told(laboratory: Laboratory) -> Mapping[str, Any]:
    counts = laboratory.labels[laboratory.labels != UNKNOWN].bincount(minlength=len(laboratory.classes)).tolist()
    return {
        "name": laboratory.name,
        "cells": len(laboratory),
        "masked": int(laboratory.masked.sum()),
        "classes": dict(zip(laboratory.classes, counts, strict=True)),
        "problems": len(laboratory.problems),
        "fingerprint": laboratory.fingerprint(),
    }


def _notes(own: Sequence[Laboratory], found: Calibration, said: Any, labels: Tensor) -> list[str]:
    """What a person should know who relies on it."""
    notes: list[str] = []
    every = torch.cat([each.labels for each in own])
    few = [name for label, name in enumerate(own[0].classes) if int((every == label).sum()) < 5]
    if few:
        notes.append(f"too few cells to hold one out, so that nothing is known of how well it does: {', '.join(few)}")
    if found.threshold.value is None:
        for error, other in easier(found, said, labels).items():
            notes.append(f"with --error {error:g}, {other.kept} of {other.cells} held-out cells would be sure")
            break
    return notes
