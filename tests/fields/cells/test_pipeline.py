"""All stages from pictures to codes, at the smallest size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from acclimate.fields.cells.coding import room_of
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.data.made_up import made_up
from acclimate.fields.cells.embedding.learning import CodeTraining
from acclimate.fields.cells.pipeline import CellEncoder, train_encoder, train_masks
from acclimate.fields.cells.plan import PAPER, Plan
from acclimate.fields.cells.sam.learning import MaskTraining
from acclimate.fields.cells.sam.loading import load_sam
from acclimate.fields.cells.sam.segmenter import Segmenter
from acclimate.fields.cells.sam.sizes import UNIT


def plan(method: str = "dorl", **options: Any) -> Plan:
    masks = MaskTraining(epochs=1, batch_size=8, learning_rate=1e-3, own_colours=True)
    return Plan(
        **{
            "method": method,
            "size": "unit",
            "start": None,
            "masks": masks,
            "sides": 2,
            "training": CodeTraining(epochs=2, batch_size=8, learning_rate=1e-3),
            "settings": {"dorl": {"depth": 1}, "bcsam": {"inner": 16}, "none": {}}[method],
            **options,
        }
    )


def laboratories() -> list[Laboratory]:
    """Of the second no mask is known."""
    one, two = made_up(8, 0).values()
    return [one, replace(two, masks=None)]


@pytest.mark.parametrize("method", ["dorl", "bcsam", "none"])
def test_what_is_saved_gives_the_same_codes(method: str, tmp_path: Path) -> None:
    encoder = train_encoder(laboratories(), plan(method), tmp_path / "work", published=Segmenter(UNIT, parts=3))
    other = made_up(5, 7)["made-up-2"]
    views = encoder.look(other)
    codes = encoder.codes(views)
    assert codes.shape == (5, 50 if method == "bcsam" else 48) and codes.dtype == torch.float32
    assert codes.std(0).max() > 0
    again = CellEncoder.load(encoder.save(tmp_path / "kept"), published=Segmenter(UNIT, parts=3))
    assert again.plan.told() == encoder.plan.told()
    assert torch.equal(again.codes(again.look(other)), codes)
    assert torch.equal(again.look(other).masks, views.masks)
    if method == "none":
        means = views.features.double().mean((0, 3, 4))
        level = (means - means.mean(0)) / means.std(0, correction=0).clamp_min(1e-4)
        assert torch.allclose(codes.double(), level, atol=1e-2)
        plain = replace(encoder, plan=replace(encoder.plan, own=False))
        assert torch.allclose(plain.codes(views).double(), means, atol=1e-5)


def test_what_was_learned_is_taken_up_again(tmp_path: Path) -> None:
    start = MaskTraining(epochs=1, batch_size=64, learning_rate=1e-3)
    chosen = plan(start=start)
    told: list[str] = []

    def tell(what: str, done: int, total: int) -> None:
        assert 0 < done <= total
        told.append(what)

    first = train_encoder(laboratories(), chosen, tmp_path, progress=tell)
    assert list(dict.fromkeys(told)) == ["made-up cells", "masks", "seeing made-up-1", "seeing made-up-2", "dorl"]
    told.clear()
    again = train_encoder(laboratories(), chosen, tmp_path, progress=tell)
    assert told == []  # nothing is even looked at
    other = made_up(3, 7)["made-up-1"]
    assert torch.equal(first.codes(first.look(other)), again.codes(again.look(other)))
    told.clear()
    train_masks(laboratories()[::-1], chosen, tmp_path, progress=tell)  # in another order it is the same
    assert told == []
    train_masks(laboratories(), replace(chosen, rank=2), tmp_path, progress=tell)
    assert told == ["masks"]


def test_what_is_learned_without_labels_is_kept_when_labels_change(tmp_path: Path) -> None:
    start = MaskTraining(epochs=1, batch_size=64, learning_rate=1e-3)
    chosen = plan("bcsam", start=start, sides=1)
    told: list[str] = []

    def tell(what: str, done: int, total: int) -> None:
        told.append(what)

    one, two = laboratories()
    first = train_encoder([one, two], chosen, tmp_path, progress=tell)
    relabelled = [one.labels.roll(steps) for steps in range(1, 4)] + [one.labels.flip(0).roll(s) for s in range(4)]
    sooner = one.fingerprint() < two.fingerprint()
    assert any((replace(one, labels=each).fingerprint() < two.fingerprint()) != sooner for each in relabelled)
    for labels in relabelled:
        told.clear()
        again = train_encoder([replace(one, labels=labels), two], chosen, tmp_path, progress=tell)
        assert told == []
        for name, value in again.segmenter.state_dict().items():
            assert torch.equal(value, first.segmenter.state_dict()[name])
    pictures = two.images.clone()
    pictures[0, 0, 0, 0] ^= 255
    train_encoder([one, replace(two, images=pictures)], chosen, tmp_path, progress=tell)
    assert "bcsam" in told and "seeing made-up-1" in told
    told.clear()
    assert one.masks is not None
    train_encoder([replace(one, masks=one.masks.flip(0)), two], chosen, tmp_path, progress=tell)
    assert {"masks", "bcsam"} <= set(told) and "made-up cells" not in told


def test_an_interrupted_stage_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    chosen = plan("none", masks=MaskTraining(epochs=2, batch_size=8, learning_rate=1e-3), rank=2)

    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    def published() -> Segmenter:
        return Segmenter(UNIT, parts=3, rank=2)

    with pytest.raises(KeyboardInterrupt):
        train_masks(laboratories(), chosen, tmp_path / "a", published=published(), progress=stop)
    parted = train_masks(laboratories()[::-1], chosen, tmp_path / "a", published=published())
    whole = train_masks(laboratories(), chosen, tmp_path / "b", published=published())
    for name, value in whole.state_dict().items():
        assert torch.equal(parted.state_dict()[name], value), name


def test_published_weights_go_all_the_way(tmp_path: Path) -> None:
    """A checkpoint of the same numbers as "unit" at another image size."""
    config = UNIT.at(96).config(3)
    torch.manual_seed(0)
    transformers.SamModel(config).save_pretrained(tmp_path / "sam")
    sam = load_sam(tmp_path / "sam", image_size=64, local_files_only=True)
    assert sam.size is UNIT
    frozen = sam.encoder.pos_embed.detach().clone()
    encoder = train_encoder(laboratories(), plan("none", parts=2), tmp_path / "work", published=sam)
    assert torch.equal(encoder.segmenter.encoder.pos_embed, frozen)
    folder = encoder.save(tmp_path / "kept")
    again = load_sam(tmp_path / "sam", image_size=64, local_files_only=True, seed=5)
    kept = CellEncoder.load(folder, published=again)
    assert torch.equal(kept.codes(kept.look(laboratories()[1])), encoder.codes(encoder.look(laboratories()[1])))


def test_beside_published_weights_little_is_saved_and_they_are_asked_for(tmp_path: Path) -> None:
    encoder = train_encoder(laboratories(), plan("none"), tmp_path / "work", published=Segmenter(UNIT, parts=3))
    folder = encoder.save(tmp_path / "kept")
    assert {path.name for path in folder.iterdir()} == {"adapter.safetensors", "plan.json"}
    whole = sum(each.numel() * each.element_size() for each in encoder.segmenter.state_dict().values())
    assert (folder / "adapter.safetensors").stat().st_size < whole / 2
    with pytest.raises(ValueError, match=r"beside published weights.*published=load_sam\(.*parts=3, rank=4"):
        CellEncoder.load(folder)
    for other in (Segmenter(UNIT, parts=3, seed=1), Segmenter(UNIT, parts=2), Segmenter(UNIT, parts=3, rank=2)):
        with pytest.raises(ValueError, match=r"is of another (base|parts|rank).*Load the encoder that it was trained"):
            CellEncoder.load(folder, published=other)
    own = CellEncoder(replace(encoder.plan, start=MaskTraining(epochs=1)), encoder.segmenter, None)
    assert {path.name for path in own.save(folder).iterdir()} == {"segmenter.safetensors", "plan.json"}
    with pytest.raises(ValueError, match="expected no published"):
        CellEncoder.load(folder, published=Segmenter(UNIT, parts=3))
    views = encoder.look(laboratories()[1])
    assert torch.equal(CellEncoder.load(folder).codes(views), encoder.codes(views))


def test_feature_maps_at_the_papers_size_stay_in_the_folder(tmp_path: Path) -> None:
    assert room_of(PAPER["dorl"], tmp_path) == tmp_path and room_of(Plan(), tmp_path) is None


def test_what_does_not_fit_is_told_before_any_training(tmp_path: Path) -> None:
    cells = laboratories()
    with pytest.raises(ValueError, match=r"plan without start and no published encoder.*load_sam"):
        train_encoder(cells, plan(), tmp_path)
    with pytest.raises(ValueError, match="the plan has parts = 3, expected"):
        train_encoder(cells, plan(), tmp_path, published=Segmenter(UNIT))
    with pytest.raises(ValueError, match="the plan has start = "):
        train_encoder(cells, plan(start=MaskTraining()), tmp_path, published=Segmenter(UNIT, parts=3))
    chosen = plan(start=MaskTraining())
    with pytest.raises(ValueError, match="no mask is known in made-up-2"):
        train_encoder(cells[1:], chosen, tmp_path)
    with pytest.raises(ValueError, match="has pictures of 32 pixels, expected 64"):
        train_encoder(list(made_up(4, 0, size=32).values()), chosen, tmp_path)
    with pytest.raises(ValueError, match="tokens that double"):
        train_encoder(cells, replace(chosen, picture=100), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_plans_tell_themselves() -> None:
    for each in (Plan(), plan("bcsam"), *PAPER.values()):
        assert Plan.of(json.loads(json.dumps(each.told()))).told() == each.told()
    one, other = Plan(), Plan(settings={"masked": 0.5})
    assert one.digest("settings") != other.digest("settings") and one.digest("masks") == other.digest("masks")
    assert one.digest("masks", "a") != one.digest("masks", "b")
    assert one.digest() != replace(one, seed=1).digest()
    for wrong in (
        {"method": "x"},
        {"size": "x"},
        {"sides": 0},
        {"sides": 9},
        {"rank": 0},
        {"rank": 97},
        {"parts": 4},
        {"settings": {"depht": 2}},
        {"settings": {"picture": 64}},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong)).removesuffix("s")):
            Plan(**wrong)
    assert Plan(rank=96, sides=8).rank == 96


def test_masks_are_learned_in_the_colours_that_cells_are_seen_in() -> None:
    for own in (True, False):
        found = Plan(own=own, masks=MaskTraining(own_colours=not own))
        assert found.start is not None
        assert found.masks.own_colours == found.start.own_colours == own
    assert replace(Plan(), own=False).masks == replace(Plan().masks, own_colours=False)


def test_a_share_held_out_counts_in_digests_and_none_does_not() -> None:
    # What is told of a plan without one is what was told before there was the choice, so that files are found.
    assert "held_out" not in Plan().told()["masks"]
    chosen = Plan(masks=MaskTraining(held_out=0.25))
    assert chosen.digest("masks") != Plan(masks=MaskTraining()).digest("masks")
    assert Plan.of(json.loads(json.dumps(chosen.told()))).masks.held_out == 0.25


def test_the_papers_settings() -> None:
    with torch.device("meta"):
        found = {method: each.autoencoder() for method, each in PAPER.items()}
    bcsam, dorl = found["bcsam"], found["dorl"]
    assert bcsam is not None and (bcsam.code, bcsam.domain_weight, bcsam.pairs) == (50, 5.0, "anchor")
    assert dorl is not None and (dorl.code, dorl.domain_weight, dorl.feature_weight) == (768, 2.0, 1.0)
    for each in PAPER.values():
        assert (each.masks.epochs, each.masks.learning_rate, each.masks.weight_decay, each.rank) == (150, 1e-4, 0.1, 4)
    assert PAPER["dorl"].learned == CodeTraining(epochs=300, batch_size=64, learning_rate=1e-4, weight_decay=0.05)
    assert PAPER["bcsam"].learned == CodeTraining(epochs=10, batch_size=128, learning_rate=5e-4, weight_decay=0.05)


def test_broken_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no plan.json"):
        CellEncoder.load(tmp_path)
    encoder = CellEncoder(plan(start=MaskTraining()), Segmenter(UNIT, parts=3), plan().autoencoder())
    encoder.save(tmp_path)
    text = (tmp_path / "plan.json").read_text()
    for wrong in ("{", "{}", text.replace('"sides"', '"side"'), text.replace('"dorl"', '"else"')):
        (tmp_path / "plan.json").write_text(wrong)
        with pytest.raises(ValueError, match=r"plan.json holds no plan that can be read"):
            CellEncoder.load(tmp_path)
    (tmp_path / "plan.json").write_text(text.replace('"depth": 1', '"depth": 2'))
    with pytest.raises(ValueError, match="holds another model than the plan names"):
        CellEncoder.load(tmp_path)
