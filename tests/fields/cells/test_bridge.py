"""The model of a laboratory answers as its parts do, and is adapted like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import acclimate
from acclimate.fields.cells.bridge import cell_model, side_codes
from acclimate.fields.cells.classify.classifiers import build
from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.embedding.learning import CodeTraining, level
from acclimate.fields.cells.embedding.views import look
from acclimate.fields.cells.pipeline import CellEncoder, train_encoder
from acclimate.fields.cells.plan import Plan
from acclimate.fields.cells.sam.learning import MaskTraining
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import UNIT

pytest.importorskip("transformers")

ONCE = MaskTraining(epochs=1, batch_size=8, learning_rate=1e-3, own_colours=True)


def plan(method: str, **choices: object) -> Plan:
    settings = {"dorl": {"depth": 1, "decoder_depth": 1, "heads": 4}, "bcsam": {"inner": 16}}.get(method, {})
    return Plan(
        method=method,
        size="unit",
        start=None,
        masks=ONCE,
        sides=2,
        training=CodeTraining(epochs=1, batch_size=16, learning_rate=1e-3),
        settings=settings,
        **choices,  # pyright: ignore[reportArgumentType]
    )


@pytest.mark.parametrize("method", ["none", "bcsam", pytest.param("dorl", marks=pytest.mark.slow)])
def test_pixels_to_logits_is_the_way_of_the_parts(method: str, tmp_path: Path) -> None:
    labs = made_up(16, 3, size=64)
    encoder = train_encoder(list(labs.values()), plan(method), tmp_path, published=Segmenter(UNIT, parts=3))
    lab = labs["made-up-1"]
    views = look(encoder.segmenter, lab, sides=2, picture=64, own_colours=True)
    codes = level(side_codes(encoder, views.standard()))
    classifier = build("logistic").fit(codes, lab.labels.repeat(2))
    model = cell_model(encoder, lab, views, classifier)
    found = model(lab.images.float() / 255).softmax(1)
    asked = torch.from_numpy(classifier.probabilities(codes[: len(lab)], 4))
    # Feature maps are kept in half precision, and standardised from there.
    torch.testing.assert_close(found, asked, atol=0.02, rtol=0)

    adapted = acclimate.adapt(model, "bn")
    other = labs["made-up-2"].images.float() / 255
    before = model(other)
    assert not torch.allclose(adapted(other), before)
    assert torch.equal(adapted.unwrap()(other), before)


def test_without_own_statistics_there_is_no_model_of_a_laboratory(tmp_path: Path) -> None:
    lab = made_up(8, 0, palettes=1, size=64)["made-up-1"]
    encoder = train_encoder([lab], plan("none"), tmp_path, published=Segmenter(UNIT, parts=3))
    foreign = CellEncoder(plan("none", own=False), encoder.segmenter, None)
    views = encoder.look(lab)
    classifier = build("logistic").fit(side_codes(encoder, views), lab.labels.repeat(2))
    with pytest.raises(ValueError, match="own"):
        cell_model(foreign, lab, views, classifier)
