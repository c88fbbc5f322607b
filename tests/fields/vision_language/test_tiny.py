"""The small encoders: captions are true, training lowers the loss, prompts are the texts, and what the proof counts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from acclimate.fields.vision_language import adapt, evaluate, text_matrix
from acclimate.fields.vision_language.tiny import TINY, Captions, TinyPrompts, looks, proof, tiny_clip, tiny_sight
from acclimate.parts.features import unit

NAMES = ("ant", "bee", "cat")


def test_looks_are_read_off_pixels() -> None:
    images = torch.stack([torch.full((3, 8, 8), value) for value in (0.1, 0.5, 0.9)])
    images[1, :, 3:-3, 3:-3] = 0  # what is inside the border has no say in the ground
    assert looks(images).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_a_caption_is_true_of_its_image_and_of_those_that_share_what_it_says() -> None:
    labels, seen = torch.tensor([0, 0, 0, 1]), torch.tensor([[0, 3], [0, 4], [2, 3], [0, 3]])
    captions, light, ground = Captions(NAMES), ("dark", "", "bright"), list(proof_colours())
    for seed in range(20):
        texts, true = captions.draw(labels, seen, torch.Generator().manual_seed(seed))
        for place, text in enumerate(texts):
            for image in range(4):
                said = [word for word in ("dark", "bright") if word in text.split()]
                fits = labels[image] == labels[place] and all(word == light[seen[image, 0]] for word in said)
                if "ground" in text:
                    fits = fits and text.split()[-2] == ground[seen[image, 1]]
                assert bool(true[image, place]) == bool(fits), (text, image)


def proof_colours() -> dict[str, tuple[float, float, float]]:
    from acclimate.fields.vision_language.tiny.captions import COLOURS

    return COLOURS


@pytest.mark.parametrize("name", TINY)
def test_steps_of_training_lower_the_loss(name: str) -> None:
    recipe, generator = TINY[name], torch.Generator().manual_seed(0)
    model, labels = recipe.build().train(), torch.arange(12) % 10
    images = torch.rand(12, 3, 32, 32, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses: list[float] = []
    for _ in range(15):
        loss, right = recipe.loss(model, images, labels, None, torch.Generator().manual_seed(1))
        assert 0 <= float(right) <= 12
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


def test_untouched_prompts_are_the_texts_and_only_the_context_learns() -> None:
    clip = tiny_clip()
    prompts = TinyPrompts(clip)
    plain = text_matrix(clip.encode_text, [Captions(clip.names).text(n) for n in range(10)], templates=["{}"])
    assert torch.allclose(prompts(), plain, atol=1e-5)
    (prompts()[0, 0]).backward()
    assert prompts.context.grad is not None and prompts.context.grad.abs().sum() > 0


@pytest.mark.real_data
@pytest.mark.usefixtures("shared")
def test_the_proof_counts_what_a_pass_by_hand_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, nn.Module] = {"clip-tiny": tiny_clip(), "sight-tiny": tiny_sight()}
    monkeypatch.setattr(proof, "load_tiny", made.__getitem__)
    told: list[str] = []
    options = {
        "methods": ("zero-shot", "cosmic", "cosmic:oracle"),
        "corruptions": ("fog", "snow"),
        "size": 12,
        "views": 3,
    }
    proof.reproduce_tiny(tmp_path, **options, progress=lambda done, total, note: told.append(note))
    assert len(told) == 6
    rows = {row[0]: row[2:] for row in csv.reader((tmp_path / "tables/tiny.csv").read_text().splitlines())}
    features = proof.corruption_features(tmp_path / "features", "fog", size=12, views=3)
    assert features.clip.shape == (12, 3, 64) and features.auxiliary is not None
    model, _ = proof.tiny_model()
    by_hand = evaluate(adapt(features.model(), method="cosmic"), features.batches(seed=0, views=3)).top1
    assert float(rows["cosmic, weights (1, 1, 1)"][0]) == pytest.approx(by_hand)
    own = (features.clip[:, 0] @ unit(model.text_features).T).argmax(1) == features.labels
    assert float(rows["zero-shot, same texts as below"][0]) == pytest.approx(100 * own.float().mean().item())
    assert (tmp_path / "tables/tiny-oracle.csv").is_file() and "ORACLE" not in "".join(rows)
    told.clear()
    monkeypatch.setattr(proof, "evaluate", None)  # nothing is run again
    proof.reproduce_tiny(tmp_path, **options)


def test_without_weights_it_says_how_to_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="acclimate train clip-tiny"):
        proof.reproduce_tiny(tmp_path / "run", size=4)
