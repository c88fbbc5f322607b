"""Templates as published, the mean of unit features as written, and descriptions that fit their classes."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from acclimate.fields.vision_language import TEMPLATES, load_descriptions, text_matrix
from acclimate.fields.vision_language.texts.matrix import prompts


def encode(texts):
    """Some features of a text, each on a scale of its own."""
    rows = [[1.0 + text.count(letter) * len(text) for letter in "abcdeo"] for text in texts]
    return torch.tensor(rows, dtype=torch.float64)


def by_hand(lines):
    parts = [F.normalize(encode([line])[0].float(), dim=0) for line in lines]
    return F.normalize(torch.stack(parts).mean(0), dim=0)


def test_templates_are_the_published_ones():
    full = TEMPLATES["full80"]
    assert len(full) == len(set(full)) == 80
    assert all(template.count("{}") == 1 and template.endswith(".") for template in full)
    known = ["a photo of the hard to see {}.", "the plushie {}.", "a {} in a video game.", "itap of my {}."]
    known += [
        "a photo of many {}.",
        "graffiti of the {}.",
        "a close-up photo of a {}.",
        "the cartoon {}.",
        "art of a {}.",
    ]
    assert set(known) <= set(full)
    assert {"a origami {}.", "itap of a {}."} <= set(TEMPLATES["tip7"]) and len(TEMPLATES["tip7"]) == 7
    assert set(TEMPLATES["tip7"]) <= set(full) and set(TEMPLATES["simple"]) <= set(full)


def test_the_matrix_is_the_mean_of_unit_features():
    names = ["maine_coon", "beagle"]
    found = text_matrix(encode, names, templates="tip7", batch=3)
    for row, name in zip(found, ("maine coon", "beagle"), strict=True):
        expected = by_hand([template.replace("{}", name) for template in TEMPLATES["tip7"]])
        assert torch.allclose(row, expected, atol=1e-6)
    assert found.dtype == torch.float32 and not found.requires_grad
    assert torch.allclose(found, text_matrix(encode, names, templates="tip7", batch=100), atol=1e-6)
    assert torch.allclose(text_matrix(encode, names)[0], by_hand(["a photo of a maine coon."]), atol=1e-6)


def test_descriptions_join_the_templates_or_stand_alone():
    told = {"beagle": ["A beagle barks."], "maine coon": ["A large cat.", "A cat with long hair."]}
    names = ["maine_coon", "beagle"]
    alone = text_matrix(encode, names, templates=None, descriptions=told)
    assert torch.allclose(alone[0], by_hand(told["maine coon"]), atol=1e-6)
    both = text_matrix(encode, names, templates="a {}.", descriptions=told)
    assert torch.allclose(both[0], by_hand(["a maine coon.", *told["maine coon"]]), atol=1e-6)
    assert torch.allclose(both[1], by_hand(["a beagle.", "A beagle barks."]), atol=1e-6)
    assert prompts(["{}"], templates="a {}.") == [["a {}."]]


def test_batches_are_no_larger_than_asked():
    sizes = []

    def watched(texts):
        sizes.append(len(texts))
        return encode(texts)

    text_matrix(watched, ["a", "b", "c"], templates="tip7", batch=8)
    assert sizes == [8, 8, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": []}, "expected a list of one or more"),
        ({"names": "cat"}, "expected a list of one or more"),
        ({"names": ["cat", "_"]}, "class 1 has an empty name"),
        ({"names": ["a_b", "a b"]}, "class names more than once: a b.*repeats=True"),
        ({"templates": "tip8"}, "there are no templates 'tip8'. Name one of simple"),
        ({"templates": ["a photo"]}, "expected a text with {} where"),
        ({"templates": None}, "neither templates nor descriptions"),
        ({"templates": []}, "neither templates nor descriptions"),
        ({"batch": 0}, "batch must be a whole number"),
        ({"descriptions": {"cat": ["It purrs."]}}, "1 of 2 classes have no description: dog"),
        ({"descriptions": {"cat": ["x"], "dogs": ["y"]}}, "The nearest to 'dog' is 'dogs'"),
        (
            {"descriptions": {"cat": ["x"], "dog": ["y"], "cow": ["z"]}},
            "descriptions are of none of the 2 classes: cow",
        ),
        ({"descriptions": {"cat": [], "dog": ["y"]}}, "for 'cat', expected a list of one or more sentences"),
        ({"descriptions": {"cat": "x", "dog": ["y"]}}, "found 'x' for 'cat'"),
        ({"descriptions": {"c_t": ["x"], "c t": ["y"]}}, "'c t' is described twice"),
    ],
)
def test_texts_that_do_not_fit_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        text_matrix(encode, **{"names": ["cat", "dog"], **arguments})


def test_features_that_do_not_fit_are_told():
    for encoder, message in (
        (lambda texts: torch.ones(len(texts)), r"made \[2\] of 2 texts, expected features \[2, D\]"),
        (lambda texts: torch.ones(1, 3), r"made \[1, 3\] of 2 texts"),
        (lambda texts: [1.0], "made list of 2 texts"),
        (lambda texts: torch.tensor([[1.0], [float("nan")]]), "feature of 'a photo of a dog.' is zero or not finite"),
        (lambda texts: torch.tensor([[0.0], [1.0]]), "feature of 'a photo of a cat.' is zero or not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            text_matrix(encoder, ["cat", "dog"])
    with pytest.raises(ValueError, match="cancel one another out"):
        text_matrix(lambda texts: torch.tensor([[1.0], [-1.0]]), ["cat"], templates=["a {}", "b {}"])


def test_names_that_repeat_can_be_allowed():
    found = text_matrix(encode, ["sunglasses", "cat", "sunglasses"], repeats=True)
    assert torch.equal(found[0], found[2])


def test_descriptions_of_files(tmp_path):
    path = tmp_path / "told.json"
    path.write_text(json.dumps({"tabby_cat": ["It is striped."], "dog": ["It barks.", "It runs."]}), encoding="utf-8")
    assert load_descriptions(path) == {"tabby cat": ("It is striped.",), "dog": ("It barks.", "It runs.")}
    assert list(load_descriptions(path, ["dog", "tabby cat"])) == ["dog", "tabby cat"]
    assert load_descriptions(path, ["dog"], others=True) == {"dog": ("It barks.", "It runs.")}
    with pytest.raises(ValueError, match=r"told.json: 1 descriptions are of none of the 1 classes: tabby cat"):
        load_descriptions(path, ["dog"])
    with pytest.raises(ValueError, match=r"1 of 2 classes have no description: tiger"):
        load_descriptions(path, ["dog", "tiger"], others=True)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_descriptions(tmp_path / "other.json")
    for content, message in (("{", "is no JSON"), ("[]", "holds list, expected an object"), ('{"a": [3]}', "for 'a'")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            load_descriptions(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"told\.json is not text in UTF-8"):
        load_descriptions(path)


@pytest.mark.parametrize("size", [1e-30, 1e30, 1e-44])
def test_lengths_of_features_do_not_matter(size):
    rows = {"a photo of a cat.": [3.0, 4.0], "a photo of a dog.": [-4.0, 3.0]}
    found = text_matrix(lambda texts: torch.tensor([rows[text] for text in texts]) * size, ["cat", "dog"])
    assert torch.allclose(found, torch.tensor([[0.6, 0.8], [-0.8, 0.6]]), atol=1e-6 if size > 1e-40 else 0.2)
