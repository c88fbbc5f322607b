"""Settings and parts that do not fit are told before anything is learned, with what was found and expected."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acclimate.fields.vision_language import Features, VisionLanguage, adapt, registry
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.methods.tip_adapter import TipAdapter

from .subjects import TEXTS, WIDTH, Encoder, Prompts

NAMES = ("ant", "bee", "cat", "dog", "elk")


def texts(row: int, value: float) -> Tensor:
    found = TEXTS.clone()
    found[row] = value
    return found


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "no classes": ({"text_features": TEXTS[:0]}, r"found text features \[0, 16\], expected a tensor \[K, D\]"),
    "no width": ({"text_features": TEXTS[:, :0]}, r"found text features \[5, 0\]"),
    "one axis": ({"text_features": TEXTS[0]}, r"found text features \[16\]"),
    "a list": ({"text_features": TEXTS.tolist()}, "found text features list"),
    "a zero row": ({"text_features": texts(3, 0.0)}, r"\[5, 16\] with 1 rows that are all zero: 3"),
    "a row of NaN": ({"text_features": texts(1, float("nan"))}, "with 1 rows that are not finite: 1"),
    "a scale in letters": ({"logit_scale": "100"}, "logit_scale must be a finite number above 0, found '100'"),
    "no scale": ({"logit_scale": None}, "logit_scale must be a finite number above 0, found None"),
    "a scale of 0": ({"logit_scale": 0.0}, "logit_scale must be a finite number above 0, found 0.0"),
    "too few names": ({"classes": NAMES[:4]}, "found 4 names for 5 rows of text features"),
    "a name twice": ({"classes": ("cat", "cat", *NAMES[:3])}, "found class names more than once: cat"),
    "a name in two spellings": ({"classes": ("a_b", "a b", *NAMES[:3])}, "found class names more than once: a b"),
    "an empty name": ({"classes": ("", *NAMES[:4])}, "class 0 has an empty name"),
    "a string": ({"classes": "abcde"}, "found the class names 'abcde', expected a list"),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_that_do_not_fit_are_told(case):
    changes, told = PARTS[case]
    given = {"text_features": TEXTS, **changes}
    with pytest.raises(ValueError, match=told):
        VisionLanguage(None, **given)
    with pytest.raises(ValueError, match=told):
        adapt(None, method="tda", **given)


def test_names_may_repeat_where_that_is_said():
    twice = ("cat", "cat", *NAMES[:2], "dog")
    assert adapt(None, TEXTS, "tda", classes=twice, repeats=True).module.classes == twice
    features = Features(clip=TEXTS, text=TEXTS, classes=twice, repeats=True)
    assert features.model().classes == twice


def test_a_scale_may_be_a_tensor():
    assert float(VisionLanguage(None, TEXTS, logit_scale=torch.tensor(14.5)).logit_scale) == 14.5  # type: ignore[arg-type]


BESIDE = {
    "text_features": TEXTS,
    "logit_scale": 100.0,
    "auxiliary": nn.Flatten(),
    "prompts": Prompts(TEXTS),
    "classes": NAMES,
    "repeats": False,
}


@pytest.mark.parametrize("name", BESIDE)
def test_nothing_overrules_a_model_that_is_passed(name):
    model = VisionLanguage(Encoder(0, WIDTH), TEXTS, logit_scale=30.0)
    with pytest.raises(ValueError, match=f"found {name} beside a VisionLanguage, which has its own"):
        adapt(model, method="tda", **{name: BESIDE[name]})
    assert float(adapt(model, method="tda").module.logit_scale) == 30.0


def test_prompts_of_other_classes_are_told():
    for rows in (TEXTS[:3], torch.cat([TEXTS, TEXTS[:1]]), TEXTS[:, :8]):
        told = rf"the prompts give texts \[{len(rows)}, {rows.shape[1]}\] beside text features \[5, 16\]"
        with pytest.raises(ValueError, match=told):
            adapt(Encoder(0, WIDTH), TEXTS, "tpt", prompts=Prompts(rows))


SETTINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "two weights": ("cosmic", {"weights": (1, 1)}, r"weights are \(1, 1\), expected three numbers"),
    "four weights": ("cosmic", {"weights": (1, 1, 1, 5)}, r"weights are \(1, 1, 1, 5\), expected three numbers"),
    "a number for weights": ("cosmic", {"weights": 5}, "weights are 5, expected three numbers"),
    "weights of 0": ("cosmic", {"weights": (0, 0, 0)}, r"weights are \(0, 0, 0\), which answers every image alike"),
    "a weight of NaN": ("cosmic", {"weights": (1, float("nan"), 1)}, "weight_1 must be at least 0, found nan"),
    "an endless weight": ("cosmic", {"weights": (1, 1, float("inf"))}, r"weight_2 must be below 1e\+18, found inf"),
    "a level of NaN": ("cosmic", {"level": float("nan")}, "level must lie between -1 and 1, found nan"),
    "a level above 1": ("cosmic", {"auxiliary_level": 2.0}, "auxiliary_level must lie between -1 and 1, found 2.0"),
    "a degree below 0": ("cosmic", {"clip_degree": -1.0}, "clip_degree must be at least 0, found -1.0"),
    "an endless degree": ("cosmic", {"degree": float("inf")}, r"degree must be below 1e\+18"),
    "weights beyond single precision": ("cosmic", {"weights": (1e38,) * 3}, r"weight_0 must be below 1e\+18"),
    "endless affinities": ("tda", {"alpha": float("inf")}, r"alpha must be below 1e\+18, found inf"),
    "endless sharpness": ("boostadapter", {"negative_beta": float("inf")}, r"negative_beta must be below 1e\+18"),
    "an endless weight of DMN": ("dmn", {"weight": float("inf")}, r"weight must be below 1e\+18, found inf"),
    "a bound of NaN": ("tda", {"low": float("nan")}, "low_bound must be at least 0, found nan"),
    "a bound of NaN below": ("tda", {"negative_high": float("nan")}, "negative_high must be at least 0, found nan"),
    "DMN's share": ("dmn", {"sure": 5}, "sure must lie between 0 and 1, found 5"),
    "TDA's share": ("tda", {"sure": 5}, "sure must lie between 0 and 1, found 5"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_out_of_range_are_told(case):
    name, settings, told = SETTINGS[case]
    with pytest.raises(ValueError, match=told):
        registry.build({"name": name, **settings})


def test_weights_may_be_a_list_as_in_a_file():
    assert COSMIC(weights=[1.0, 0.0, 1.0]).looks()  # type: ignore[arg-type]


LABELS = torch.arange(5)
LABELLED: dict[str, tuple[Tensor, Tensor, str]] = {
    "a row of NaN": (texts(2, float("nan")), LABELS, "the labelled features have 1 rows that are not finite: 2"),
    "all NaN": (TEXTS * float("nan"), LABELS, "5 rows that are not finite: 0, 1, 2, 3, 4"),
    "a zero row": (texts(2, 0.0), LABELS, "1 rows that are all zero: 2"),
    "no rows": (TEXTS[:0], LABELS[:0], r"found labelled features \[0, 16\], expected rows of 16 numbers"),
    "another width": (TEXTS[:, :12], LABELS, r"found labelled features \[5, 12\], expected rows of 16 numbers"),
    "float labels": (TEXTS, LABELS.float(), "found labels torch.float32, expected whole numbers"),
    "yes and no": (TEXTS, LABELS > 2, "found labels torch.bool, expected whole numbers"),
    "two axes of labels": (TEXTS, LABELS[:, None], r"labels \[\[5, 16\], \[5, 1\]\], expected"),
    "views that cancel": (torch.stack([TEXTS, -TEXTS]), LABELS, "cancel one another out in 5 rows"),
}


@pytest.mark.parametrize("case", LABELLED)
def test_labelled_images_that_do_not_fit_are_told(case):
    features, labels, told = LABELLED[case]
    with pytest.raises(ValueError, match=told):
        adapt(None, TEXTS, TipAdapter(features=features, labels=labels))
