"""Features that look past the laboratory, adaptation on its stream, or both: which helps a classifier of cells?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Generator, Tensor

from acclimate import adapt
from acclimate.core.storage import atomic_write
from acclimate.experiment.reproduce.part import Grid, Line
from acclimate.fields.cells.bridge import CellModel, cell_model, side_codes
from acclimate.fields.cells.classify.classifiers import build
from acclimate.fields.cells.classify.scores import scores
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.learning import level
from acclimate.fields.cells.pipeline import CellEncoder
from acclimate.fields.cells.reproduction.material import Material

__all__ = ["ADAPTATIONS", "bridged", "encoders_of"]

ADAPTATIONS = ("source", "bn", "tent")
_BATCH = 50


def bridged(
    material: Material, encoders: Mapping[str, CellEncoder], adaptations: Sequence[str] = ADAPTATIONS, seed: int = 0
) -> Grid:
    """Macro-F1 on the stream of another laboratory, mean over pairs: a line for each kind of features, a column for
    each way to adapt. Classifiers are logistic, of one side's codes; images come once, 50 at a time, in random order.
    """
    lines = [
        Line("measured", title, [100 * _mean(material, encoder, name, seed) for name in adaptations])
        for title, encoder in encoders.items()
    ]
    title = "Macro-F1 on another laboratory's unlabelled stream, mean over pairs, %"
    return Grid(key="cells-bridge", head=["no adaptation", *adaptations[1:]], lines=lines, title=title)


def _mean(material: Material, encoder: CellEncoder, adaptation: str, seed: int) -> float:
    """Over pairs, from the file of an earlier run if there is one."""
    labs = material.laboratories
    told = [encoder.plan.told(), adaptation, seed, [each.fingerprint() for each in labs.values()], *material.given]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    path = material.folder / "trials" / f"bridge-{encoder.plan.method}-{adaptation}-{digest}.json"
    if not path.is_file():
        found = [
            _answered(model, labs[target], adaptation, seed)
            for source, model in _models(material, encoder).items()
            for target in labs
            if target != source
        ]
        atomic_write(path, json.dumps(found).encode())
    return fmean(json.loads(path.read_text(encoding="utf-8")))


def _models(material: Material, encoder: CellEncoder) -> dict[str, CellModel]:
    found: dict[str, CellModel] = {}
    for name, lab in material.laboratories.items():
        plain = side_codes(encoder, material.standard[name])
        codes = level(plain) if encoder.plan.own else plain
        labels = lab.labels.repeat(len(codes) // len(lab))
        classifier = build("logistic").fit(codes, labels)
        found[name] = cell_model(encoder, lab, material.views[name], classifier)
    return found


def _answered(model: CellModel, target: Laboratory, adaptation: str, seed: int) -> float:
    adapted = adapt(model, adaptation, seed=seed)
    order = torch.randperm(len(target), generator=Generator().manual_seed(seed))
    answers: list[Tensor] = [adapted(target.images[index].float() / 255).argmax(1) for index in order.split(_BATCH)]
    return scores(torch.cat(answers), target.labels[order], len(target.classes)).macro_f1


def encoders_of(material: Material, codes: Mapping[str, str], seed: int) -> dict[str, CellEncoder]:
    """Trained encoders by title, from methods by title."""
    plans = {title: replace(material.plan, method=method, seed=seed) for title, method in codes.items()}
    return {title: material.encoder(plan) for title, plan in plans.items()}
