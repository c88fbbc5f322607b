"""Prompts whose first words are a parameter: untouched they are the plain ones, and only the words learn."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

import acclimate
from acclimate.fields import vision_language
from acclimate.fields.vision_language import Clip, PromptedTexts, load_clip, text_matrix

NAMES = ["cat", "fire_truck", "dog"]


def test_untouched_it_is_the_plain_text_encoder(clip_folder, siglip_folder):
    for folder, width in ((clip_folder, 16), (siglip_folder, 32)):
        clip = load_clip(folder)
        for start, names in (("a photo of a", NAMES), ("art of", ["of art", "art"])):
            found = PromptedTexts(clip, names, start)()
            expected = text_matrix(clip.encode_text, names, templates=f"{start} {{}}.")
            assert found.shape == (len(names), width)
            assert torch.allclose(found, expected, atol=1e-6)


def test_only_the_context_learns(clip_folder):
    clip = load_clip(clip_folder)
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    prompts = PromptedTexts(clip, NAMES)
    learning = {name for name, parameter in prompts.named_parameters() if parameter.requires_grad}
    assert learning == {"context"} and prompts.context.shape[1] == 32
    target = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    optimizer = torch.optim.AdamW([prompts.context], 0.05)
    losses = []
    for _ in range(8):
        loss = -(prompts() * target).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(value, before[name]) for name, value in clip.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in clip.parameters())
    assert {p.data_ptr() for p in clip.text_encoder.parameters()} >= {p.data_ptr() for p in prompts.texts.parameters()}


def test_the_gradient_is_that_of_the_formula(clip_folder):
    """By differences, in double precision."""
    clip = load_clip(clip_folder).double()
    prompts = PromptedTexts(clip, NAMES)
    prompts.context.data = prompts.context.data.double()
    weights = torch.randn(3, 16, generator=torch.Generator().manual_seed(1)).double()

    def value():
        return (prompts() * weights).sum()

    value().backward()
    for place in ((0, 3), (1, 7), (prompts.context.shape[0] - 1, 31)):
        at, step = prompts.context.data[place].clone(), 1e-5
        with torch.no_grad():
            prompts.context.data[place] = at + step
            more = value()
            prompts.context.data[place] = at - step
            less = value()
            prompts.context.data[place] = at
        assert float((more - less) / (2 * step)) == pytest.approx(float(prompts.context.grad[place]), abs=1e-6)


def test_copies_have_a_context_of_their_own(clip_folder):
    prompts = PromptedTexts(load_clip(clip_folder), NAMES)
    again = copy.deepcopy(prompts)
    with torch.no_grad():
        again.context.add_(1)
        assert not torch.allclose(again(), prompts())
        assert torch.equal(prompts(), prompts())


def test_many_classes_go_through_in_parts(clip_folder, monkeypatch):
    clip = load_clip(clip_folder)
    whole = PromptedTexts(clip, NAMES)()
    monkeypatch.setattr("acclimate.fields.vision_language.prompted._MOST", 2)
    assert torch.allclose(PromptedTexts(clip, NAMES)(), whole, atol=1e-6)


def test_what_cannot_be_prompted_is_told(clip_folder):
    clip = load_clip(clip_folder)
    with pytest.raises(ValueError, match="found '' as 0 tokens"):
        PromptedTexts(clip, NAMES, "")
    with pytest.raises(ValueError, match="Choose a shorter start"):
        PromptedTexts(clip, NAMES, "x " * 80)
    with pytest.raises(ValueError, match="found class names more than once"):
        PromptedTexts(clip, ["cat", "cat"])
    other = Clip(clip.image_encoder, torch.nn.Identity(), 1.0)
    with pytest.raises(ValueError, match="found a text encoder Identity, expected one of load_clip"):
        PromptedTexts(other, NAMES)


def test_tpt_tunes_it(clip_folder, tmp_path):
    clip = load_clip(clip_folder)
    texts, prompts = text_matrix(clip.encode_text, NAMES), PromptedTexts(clip, NAMES)
    model = vision_language.VisionLanguage(clip.image_encoder, texts, logit_scale=clip.logit_scale, prompts=prompts)
    method = vision_language.registry.build({"name": "tpt", "views": 6, "sure": 0.5})
    adapted = vision_language.adapt(model, method=method)
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first = adapted(x)
    plain = vision_language.adapt(model, method="zero-shot")(x)
    assert not torch.allclose(first, plain) and first.isfinite().all()
    adapted.save(tmp_path / "state.safetensors")
    resumed = acclimate.load(model, tmp_path / "state.safetensors", method=method)
    assert torch.equal(adapted(x), resumed(x))
