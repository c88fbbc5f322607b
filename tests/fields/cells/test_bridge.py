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
from acclimate.fields.cells.pipeline import train_encoder
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


@pytest.mark.parametrize("method", ["none", "bcsam"])
def test_without_own_statistics_the_source_is_served_as_it_is_and_others_are_brought_to_it(
    method: str, tmp_path: Path
) -> None:
    labs = made_up(16, 3, size=64)
    encoder = train_encoder(list(labs.values()), plan(method, own=False), tmp_path, published=Segmenter(UNIT, parts=3))
    lab, other = labs.values()
    views = encoder.look(lab)
    classifier = build("logistic").fit(side_codes(encoder, views), lab.labels.repeat(2))
    model = cell_model(encoder, lab, views, classifier)
    for each in (lab, other):
        codes = side_codes(encoder, encoder.look(each))[: len(each)]
        asked = torch.from_numpy(classifier.probabilities(codes, 4))
        found = model(each.images.float() / 255).softmax(1)
        torch.testing.assert_close(found, asked, atol=0.02, rtol=0)

    before = model(other.images.float() / 255)
    answers = acclimate.adapt(model, "bn")(other.images.float() / 255)
    norms = [model.colours, model.channels, model.codes]
    given: list[torch.Tensor] = []
    for norm in norms:
        norm.register_forward_hook(lambda _, __, out: given.append(out.detach()))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.train().momentum = 0.0  # statistics of the batch
    with torch.no_grad():
        found = model(other.images.float() / 255)
    assert torch.allclose(answers, found, atol=1e-3) and not torch.allclose(answers, before, atol=1e-2)
    for found, norm in zip(given, norms, strict=True):
        across = [axis for axis in range(found.ndim) if axis != 1]
        assert norm.running_mean is not None and norm.running_var is not None
        torch.testing.assert_close(found.mean(across), norm.running_mean, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.var(across, correction=0), norm.running_var, atol=1e-3, rtol=0.02)


def test_classifiers_without_layers_are_refused(tmp_path: Path) -> None:
    lab = made_up(8, 0, palettes=1, size=64)["made-up-1"]
    encoder = train_encoder([lab], plan("none"), tmp_path, published=Segmenter(UNIT, parts=3))
    views = encoder.look(lab)
    for name in ("svm", "svm-poly", "forest", "boosting"):
        classifier = build(name).fit(side_codes(encoder, views), lab.labels.repeat(2))
        with pytest.raises(ValueError, match=r"has no form as a module\. Fit logistic, svm-linear or neural"):
            cell_model(encoder, lab, views, classifier)
