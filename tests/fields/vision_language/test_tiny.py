"""The small encoders: captions are true, training lowers the loss, prompts are the texts, and what the proof counts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from acclimate.fields.vision_language import Features, adapt, evaluate, text_matrix
from acclimate.fields.vision_language.tiny import TINY, Captions, TinyPrompts, looks, proof, tiny_clip, tiny_sight
from acclimate.parts.features import unit

from .world import world

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


def small(**changes: object) -> Features:
    of = world(0, images=12, classes=4, views=2)
    arrays = {"clip": of.views, "text": of.texts, "auxiliary": of.auxiliary, "simple": of.texts, "labels": of.labels}
    return Features(**{**arrays, "name": "fog", **changes})  # type: ignore[arg-type]


def test_a_broken_trial_is_run_again_and_a_row_that_cannot_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "corruption_features", lambda *_, **__: small())
    monkeypatch.setattr(proof, "drawings", lambda *_: [])
    options = {"methods": ("zero-shot", "tpt", "cosmic:oracle"), "corruptions": ("fog",)}
    markdown, _ = proof.reproduce_tiny(tmp_path, **options)  # type: ignore[arg-type]
    assert "tpt did not run: TPT tunes the words before class names" in markdown.read_text()
    before = (tmp_path / "tables/tiny.csv").read_text()
    assert "zero-shot" in before and "tpt" not in before
    trials = sorted((tmp_path / "trials").glob("*.json"))
    assert len(trials) == 2
    for trial in trials:
        trial.write_text("")
    proof.reproduce_tiny(tmp_path, **options)  # type: ignore[arg-type]
    assert (tmp_path / "tables/tiny.csv").read_text() == before and all(trial.stat().st_size for trial in trials)


def test_weights_of_another_data_set_are_not_to_be_had_here(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cosmic:transfer takes weights from another data set"):
        proof.reproduce_tiny(tmp_path, methods=("cosmic:transfer",))
