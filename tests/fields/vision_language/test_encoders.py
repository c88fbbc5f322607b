"""Encoders read back from folders equal the models that were saved, and see images as their own processors do."""

from __future__ import annotations

import copy
import logging
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import acclimate
from acclimate.fields import vision_language
from acclimate.fields.vision_language import load_auxiliary, load_clip, load_open_clip, text_matrix
from acclimate.fields.vision_language.encoders.framing import Framing
from acclimate.fields.vision_language.encoders.preprocessing import CLIP, IMAGENET, Preprocessing

PAGE = Path(__file__).parents[3] / "docs" / "vision-language-encoders.md"
TEXTS = ["a photo of a cat.", "and", "two of them on a chair."]
NAMES = ["cat", "dog", "fire_truck", "tabby cat", "sea"]


def images(count=3, height=32, width=32, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def picture(height, width, seed=0):
    image = pytest.importorskip("PIL.Image")
    return image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def coloured(x, colours):
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (colours.mean, colours.std))
    return (x - mean) / std


@torch.no_grad()
def test_clip_is_the_one_that_was_saved(transformers, clip_folder):
    clip, own = load_clip(clip_folder), transformers.CLIPModel.from_pretrained(clip_folder).eval()
    x = images()
    expected = own.get_image_features(pixel_values=coloured(x, CLIP)).pooler_output
    assert torch.equal(clip(x), expected) and torch.equal(clip.image_encoder(x), expected)
    tokens = transformers.AutoTokenizer.from_pretrained(clip_folder)(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(clip.encode_text(TEXTS), own.get_text_features(**tokens).pooler_output)
    assert clip.logit_scale == pytest.approx(float(own.logit_scale.exp()))
    assert clip.image_size == 32 and not clip.training
    assert torch.equal(load_clip(str(clip_folder), local_files_only=True)(x), expected)


@torch.no_grad()
def test_siglip_is_the_one_that_was_saved(transformers, siglip_folder):
    clip, own = load_clip(siglip_folder), transformers.SiglipModel.from_pretrained(siglip_folder).eval()
    x = images()
    assert torch.equal(clip(x), own.get_image_features(pixel_values=2 * x - 1).pooler_output)
    tokenizer = transformers.AutoTokenizer.from_pretrained(siglip_folder)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=24, padding_side="right", return_tensors="pt")
    assert torch.equal(clip.encode_text(TEXTS), own.get_text_features(input_ids=tokens["input_ids"]).pooler_output)
    assert clip.logit_scale == pytest.approx(float(torch.tensor(1.5).exp()))
    processor, shown = transformers.AutoImageProcessor.from_pretrained(siglip_folder), picture(41, 30)
    expected = processor(shown, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(2 * clip.preprocess(shown) - 1, expected, atol=1e-6)


@torch.no_grad()
def test_siglip_2_of_variable_shape_sees_squares(transformers, naflex_folder):
    clip, own = load_clip(naflex_folder), transformers.Siglip2Model.from_pretrained(naflex_folder).eval()
    processor, shown = transformers.AutoImageProcessor.from_pretrained(naflex_folder), picture(32, 32)
    expected = own.get_image_features(**processor(shown, return_tensors="pt")).pooler_output
    assert clip.image_size == 32
    assert torch.allclose(clip(clip.preprocess(shown)[None]), expected, atol=1e-5)
    assert clip.preprocess(picture(50, 70)).shape == (3, 32, 32)


@pytest.mark.parametrize(("kind", "fixture"), [("Dinov2", "dino_folder"), ("Dinov2WithRegisters", "registers_folder")])
@torch.no_grad()
def test_dino_is_the_one_that_was_saved(kind, fixture, transformers, request):
    folder = request.getfixturevalue(fixture)
    dino, own = load_auxiliary(folder), getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
    x = images(height=28, width=28)
    assert dino.image_size == 28
    output = own(pixel_values=coloured(x, IMAGENET))
    assert torch.equal(dino(x), output.pooler_output) and torch.equal(dino(x), output.last_hidden_state[:, 0])
    as_released = load_auxiliary(folder, colours="clip")
    assert torch.equal(as_released(x), own(pixel_values=coloured(x, CLIP)).pooler_output)
    large = load_auxiliary(folder, image_size=42)
    wide = images(height=42, width=42)
    assert large.image_size == 42 and large.preprocess(picture(60, 90)).shape == (3, 42, 42)
    assert torch.equal(large(wide), own(pixel_values=coloured(wide, IMAGENET)).pooler_output)


@torch.no_grad()
def test_the_image_side_of_clip_can_be_auxiliary(clip_folder):
    x = images()
    assert torch.equal(load_auxiliary(clip_folder)(x), load_clip(clip_folder)(x))


@pytest.mark.parametrize("size", [(37, 41), (41, 37), (32, 32), (64, 64), (100, 33), (31, 75), (20, 24), (224, 300)])
def test_pictures_come_as_from_the_processor(size, transformers, clip_folder, dino_folder):
    shown = picture(*size)
    for folder, encoder, colours in (
        (clip_folder, load_clip(clip_folder).image_encoder, CLIP),
        (dino_folder, load_auxiliary(dino_folder), IMAGENET),
    ):
        expected = transformers.AutoImageProcessor.from_pretrained(folder)(shown, return_tensors="pt")
        found = encoder.preprocess(shown)
        assert found.shape == (3, encoder.image_size, encoder.image_size) and 0 <= found.min() <= found.max() <= 1
        assert torch.allclose(coloured(found, colours), expected["pixel_values"][0], atol=1e-5)


def test_pictures_of_any_mode(clip_folder):
    clip = load_clip(clip_folder)
    grey = clip.preprocess(picture(32, 32).convert("L"))
    assert grey.shape == (3, 32, 32) and torch.equal(grey[0], grey[2])
    assert clip.preprocess(picture(40, 40).convert("RGBA")).shape == (3, 32, 32)
    with pytest.raises(ValueError, match=r"takes a PIL.Image, found Tensor"):
        clip.preprocess(images()[0])


@torch.no_grad()
def test_tensors_of_another_size_are_resized(clip_folder):
    clip = load_clip(clip_folder)
    for side in (16, 50):
        x = images(height=side, width=side)
        resized = F.interpolate(x, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
        assert torch.equal(clip(x), clip(resized))
    tall = images(height=43, width=32)
    assert torch.equal(clip(tall), clip(tall[:, :, 5:37]))
    assert Framing(size=8).fit(torch.rand(1, 3, 10, 21)).shape == (1, 3, 8, 8)
    assert Framing(size=8, squashed=True).fit(torch.rand(1, 3, 10, 21)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Framing(size=30, shorter=30)),
        ({"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3}, Framing(size=224, shorter=224)),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, Framing(size=224, shorter=256)),
        ({"size": {"height": 64, "width": 64}}, Framing(size=64, shorter=64, squashed=True)),
        ({"size": 64, "do_center_crop": False, "resample": 2}, Framing(size=64, shorter=64, squashed=True, resample=2)),
        ({"size": {"height": 64, "width": 64}, "crop_size": 56}, Framing(size=56, shorter=64, squashed=True)),
        ({"size": {"shortest_edge": 96}, "do_center_crop": False, "crop_size": 64}, Framing(size=96, shorter=96)),
    ],
)
def test_preprocessor_files_of_all_ages(settings, expected):
    assert Preprocessing.read(settings, 30, CLIP) == Preprocessing(expected, CLIP)
    given = {**settings, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.6]}
    assert Preprocessing.read(given, 30, CLIP).colours.mean == (0.1, 0.2, 0.3)


def test_preprocessor_files_that_cannot_be_followed():
    with pytest.raises(ValueError, match="expected a square"):
        Preprocessing.read({"size": {"height": 32, "width": 64}}, 32, CLIP)
    with pytest.raises(ValueError, match="images of 1 colours"):
        Preprocessing.read({"image_mean": [0.5], "image_std": [0.5]}, 32, CLIP)


@torch.no_grad()
def test_without_a_preprocessor_colours_are_the_usual_ones(clip_folder, dino_folder, tmp_path, caplog):
    for folder, load in ((clip_folder, load_clip), (dino_folder, load_auxiliary)):
        bare = shutil.copytree(folder, tmp_path / folder.name)
        for name in ("processor_config.json", "preprocessor_config.json"):
            (bare / name).unlink(missing_ok=True)
        x = images(height=56, width=56)
        with caplog.at_level(logging.WARNING):
            found = load(bare)
        assert "images are normalised as is usual" in caplog.text
        caplog.clear()
        encoder = getattr(found, "image_encoder", found)
        assert encoder.preprocessing.colours == (CLIP if load is load_clip else IMAGENET)
        assert encoder(x).isfinite().all()


@torch.no_grad()
def test_long_texts_are_cut_before_their_end_mark_and_counted(clip_folder, caplog):
    clip = load_clip(clip_folder)
    tokens = clip.text_encoder.tokens
    with caplog.at_level(logging.WARNING):
        short = clip.encode_text(TEXTS)
        assert not caplog.records and tokens.truncated == 0
        found = clip.encode_text(["x " * 90, "y " * 75, "z " * 76])
        clip.encode_text(["x " * 100])
    ours = [record for record in caplog.records if record.name.startswith("acclimate")]
    assert tokens.truncated == 3 and len(ours) == 1 and "77 tokens" in ours[0].getMessage()
    rows = tokens(["x " * 90])["input_ids"]
    assert rows.shape == (1, 77) and rows[0, 0] == 516 and rows[0, -1] == 517
    assert torch.allclose(found[0], clip.encode_text(["x " * 75])[0], atol=1e-6)
    assert torch.equal(short, clip.encode_text(TEXTS))


@torch.no_grad()
def test_company_does_not_change_a_text(clip_folder, siglip_folder):
    for folder in (clip_folder, siglip_folder):
        clip = load_clip(folder)
        together = clip.encode_text([*TEXTS, "a lot of words " * 4])
        for place, text in enumerate(TEXTS):
            assert torch.allclose(together[place], clip.encode_text([text])[0], atol=1e-5)


@torch.no_grad()
def test_features_are_single_precision_whatever_the_model_is(clip_folder, dino_folder):
    half, whole = load_clip(clip_folder, dtype=torch.bfloat16), load_clip(clip_folder)
    assert next(half.parameters()).dtype == torch.bfloat16
    for found, expected in ((half(images()), whole(images())), (half.encode_text(TEXTS), whole.encode_text(TEXTS))):
        assert found.dtype == torch.float32 and F.cosine_similarity(found, expected).min() > 0.99
    assert load_auxiliary(dino_folder, dtype=torch.bfloat16)(images()).dtype == torch.float32


def test_what_is_no_checkpoint_is_told(clip_folder, dino_folder, tmp_path, transformers):
    with pytest.raises(ValueError, match=r"There is no folder .*nowhere, expected one that save_pretrained wrote"):
        load_clip(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"found no model at .*Expected a folder"):
        load_clip(tmp_path)
    for load in (load_clip, load_auxiliary):
        with pytest.raises(ValueError, match=r"(?s)found no model at nobody/nothing.*pass the path of a local folder"):
            load("nobody/nothing", local_files_only=True)
    with pytest.raises(ValueError, match=r"found Dinov2Model at .*expected CLIP, SigLIP or SigLIP 2"):
        load_clip(dino_folder)
    with pytest.raises(ValueError, match="does not encode images of 40 pixels"):
        load_auxiliary(clip_folder, image_size=40)
    for folder, patch in ((clip_folder, 8), (dino_folder, 14)):
        with pytest.raises(ValueError, match=f"image_size is 30, expected a multiple of {patch}"):
            load_auxiliary(folder, image_size=30)
    with pytest.raises(ValueError, match="colours must be one of"):
        load_auxiliary(dino_folder, colours="siglip")
    transformers.CLIPVisionModel.from_pretrained(clip_folder).save_pretrained(tmp_path / "vision")
    transformers.CLIPConfig.from_pretrained(clip_folder).save_pretrained(tmp_path / "vision")
    with pytest.raises(ValueError, match=r"lacks \d+ weights of CLIPModel, such as .*which would be random"):
        load_clip(tmp_path / "vision")


def test_a_model_that_pools_nothing_is_told(transformers, tmp_path):
    config = transformers.SiglipVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    config.vision_use_head = False
    transformers.SiglipVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="returns no pooler_output"):
        load_auxiliary(tmp_path)


def test_images_that_are_none_are_told(clip_folder):
    clip = load_clip(clip_folder)
    for x in (images()[0], images()[:, :1], (images() * 255).byte()):
        with pytest.raises(ValueError, match=r"expected images \[n, 3, H, W\] in \[0, 1\]"):
            clip(x)
    for texts in ("a cat", [], [3]):
        with pytest.raises(ValueError, match="expected a list of one or more texts"):
            clip.encode_text(texts)


def test_what_is_missing_is_named(clip_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install "acclimate\[vision-language\]"'):
        load_clip(clip_folder)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match="pip install open_clip_torch"):
        load_open_clip("RN50-quickgelu", "openai")


@torch.no_grad()
def test_clip_moves_and_is_copied_like_any_module(clip_folder):
    clip = load_clip(clip_folder)
    again, x = copy.deepcopy(clip), images()
    assert torch.equal(again(x), clip(x)) and torch.equal(again.encode_text(TEXTS), clip.encode_text(TEXTS))
    adapted = vision_language.adapt(clip, text_matrix(clip.encode_text, NAMES), method="tda")
    assert adapted(x).shape == (3, 5)


def test_the_whole_path_of_a_user(clip_folder, registers_folder, tmp_path):
    """Load, describe, adapt, save, resume: bit for bit as if nothing had happened."""
    clip, dino = load_clip(clip_folder), load_auxiliary(registers_folder)
    texts = text_matrix(clip.encode_text, NAMES, templates="tip7")
    stream = images(24, seed=7).split(6)

    def built():
        return vision_language.VisionLanguage(
            clip.image_encoder, texts, logit_scale=clip.logit_scale, auxiliary=dino, classes=NAMES
        )

    adapted = vision_language.adapt(built(), method="cosmic")
    for batch in stream[:2]:
        assert adapted(batch).shape == (6, 5)
    adapted.save(tmp_path / "state.safetensors")
    method = vision_language.registry.build("cosmic")
    resumed = acclimate.load(built(), tmp_path / "state.safetensors", method=method)
    for batch in stream[2:]:
        assert torch.equal(adapted(batch), resumed(batch))
    plain = vision_language.adapt(built(), method="zero-shot")
    expected = clip.logit_scale * F.normalize(clip(stream[0]), dim=1) @ texts.T
    assert torch.allclose(plain(stream[0]), expected, atol=1e-4)


def test_open_clip_is_read_the_same_way(tmp_path):
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"open_clip is not at hand: {error}")
    name = next(each for each in open_clip.list_models() if each == "ViT-S-32-alt")
    model = open_clip.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    clip, x = load_open_clip(name, str(tmp_path / "weights.pt")), images(1, 224, 224)
    with torch.no_grad():
        assert torch.equal(clip(x), model.encode_image(coloured(x, CLIP)))
        tokens = open_clip.get_tokenizer(name)(TEXTS)
        assert torch.equal(clip.encode_text(TEXTS), model.encode_text(tokens))
    assert clip.logit_scale == pytest.approx(model.logit_scale.exp().item()) and clip.image_size == 224
    with pytest.raises(ValueError, match=r"found no weights for 'RN50', expected a tag or a file. Its tags: openai"):
        load_open_clip("RN50")
    with pytest.raises(ValueError, match="open_clip loads no 'RN50' with weights 'nothing'"):
        load_open_clip("RN50", "nothing")
    with pytest.raises(ValueError, match="open_clip loads no 'RN5' with weights 'openai'"):
        load_open_clip("RN5", "openai")


def test_the_page_runs(clip_folder, dino_folder, tmp_path, monkeypatch):
    """Every block of the page but those that say they need the network, in turn, beside two small checkpoints."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clip_folder, "clip")
    shutil.copytree(dino_folder, "dino")
    picture(50, 40).save("picture.png")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    local = [block for block in blocks if "needs the network" not in block]
    assert len(local) >= 4 and len(blocks) > len(local)
    exec(compile("\n".join(local), PAGE.name, "exec"), {})


@pytest.mark.parametrize("fixture", ["clip_folder", "siglip_folder"])
def test_a_folder_without_its_vocabulary_is_told(fixture, request, tmp_path):
    """Every text would have the same tokens otherwise, and every class the same feature."""
    shutil.copytree(request.getfixturevalue(fixture), tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="tokenizer"):
        load_clip(tmp_path / "copy", local_files_only=True)


@pytest.mark.parametrize("load", [load_clip, load_auxiliary])
def test_weights_that_have_come_by_half_are_told(load, clip_folder, tmp_path):
    shutil.copytree(clip_folder, tmp_path / "copy")
    weights = tmp_path / "copy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"found no model at .*Expected a folder"):
        load(tmp_path / "copy")
