"""Training at the desk: an encoder from all laboratories, a classifier from the labelled cells, a fifth kept back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from acclimate.core.config import whole
from acclimate.fields.cells.classify.classifiers import Classifier, build
from acclimate.fields.cells.data.laboratory import UNKNOWN, Laboratory
from acclimate.fields.cells.desk.calibration import Calibration, calibrated, easier, held_out, once
from acclimate.fields.cells.desk.checking import check_teachable
from acclimate.fields.cells.desk.copies import copies_note
from acclimate.fields.cells.desk.model import CellModel, digests
from acclimate.fields.cells.desk.naming import joined_note, together
from acclimate.fields.cells.desk.opening import counted
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
    calibrate temperature and threshold; the classifier is fitted on the rest, of all laboratories together. Copies of a
    picture are all held out, where they count once, or none is.

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
    whole(1, most=most)
    fresh = _savable(build(classifier, seed=plan.seed))
    own = together(laboratories)
    words = [word for each in own for word in digests(each.images)]
    check_teachable(own, words)
    some = [_at_most(each, most, plan.seed) for each in own]
    encoder = train_encoder(some, plan, target / "stages", progress=progress)
    codes = torch.cat(
        [sighted(encoder, each, progress=counted(f"codes of {each.name}", progress)).codes for each in own]
    )
    labels = torch.cat([each.labels for each in own])
    origins = torch.cat([torch.full((len(each),), place) for place, each in enumerate(own)])
    held = held_out(labels, plan.seed, origins=origins, words=words)
    rest, counts = ~held & (labels != UNKNOWN), once(held, words)
    fresh.fit(codes[rest], labels[rest])
    truth, names = labels[counts], [own[place].name for place in origins[counts].tolist()]
    said = fresh.probabilities(codes[counts], len(own[0].classes))
    found = calibrated(said, truth, error, names)
    never = [name for label, name in enumerate(own[0].classes) if not bool((truth == label).any())]
    fitted, kept = (frozenset(words[place] for place in which.nonzero()[:, 0].tolist()) for which in (rest, held))
    taught: dict[str, Any] = {
        "laboratories": [_told(each) for each in own],
        "held_out": {"cells": len(truth), "right": int((said.argmax(1) == truth.numpy()).sum())},
        "never_held_out": never,
        "notes": [*fresh.notes, *_notes(laboratories, own, words, never), *_doubts(found, said, truth, names)],
    }
    model = CellModel(encoder, fresh, own[0].classes, found.temperature, found.threshold, taught, fitted, kept)
    model.save(target)
    return model


def _savable(classifier: Classifier) -> Classifier:
    if classifier.name == "boosting" and classifier.family != "xgboost":
        raise ValueError("boosting without xgboost cannot be saved. Install xgboost, or choose --classifier forest.")
    return classifier


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


def _notes(
    read: Sequence[Laboratory], own: Sequence[Laboratory], words: Sequence[str], never: Sequence[str]
) -> list[str]:
    """What a person should know of the pictures who relies on what was learned from them."""
    notes = [joined_note(read), copies_note(own, words)]
    for each in own:
        there = [name for label, name in enumerate(each.classes) if bool((each.labels == label).any())]
        if len(there) == 1:
            notes.append(
                f"{each.name} has cells of one class alone ({there[0]}): what is its class and what is the laboratory "
                "cannot be told apart there"
            )
    if never:
        notes.append(f"no cell held out, so that nothing is known of how well it does: {', '.join(never)}")
    return [note for note in notes if note]


def _doubts(found: Calibration, said: Any, truth: Tensor, names: Sequence[str]) -> list[str]:
    """What a person should know of temperature and threshold."""
    notes: list[str] = []
    if found.temperature.at_bound:
        notes.append(
            f"the temperature is at its bound, {found.temperature.value:.2f}: probabilities are not as certain as the "
            "answers are right"
        )
    if found.threshold.value is None:
        for error, other in easier(found, said, truth, names).items():
            notes.append(f"with --error {error:g}, {other.kept} of {other.cells} held-out cells would be sure")
            break
    return notes
