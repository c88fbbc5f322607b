"""The comparison: bytes by the formula, what is exact is exact, and the page says what the trials found."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, nn

from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.cost import SHAPES, received_bytes
from acclimate.fields.diffusion.quality import psnr
from acclimate.fields.diffusion.reproduction import reproduce_compactfusion, run, trials
from acclimate.fields.diffusion.reproduction.rows import GROUPS, POLICIES, ROWS, chosen_rows
from acclimate.fields.diffusion.reproduction.trials import Trial, exact, images_of, outcomes
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.fields.diffusion.tiny import digits_dit, load_dit, sample, start_noise

pytest.importorskip("diffusers")

COUNT, STEPS = 3, 5
SHAPE = replace(SHAPES["digits-dit"], copies=COUNT, steps=STEPS)


@functools.cache
def lively(name: str) -> nn.Module:
    """The digits' model with random weights, where a fresh one would predict nothing."""
    model, generator = digits_dit(seed=2), Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1, generator=generator)
    return model


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (run, trials):
        monkeypatch.setattr(module, "load_dit", lively)
    trials.exact.cache_clear()
    trials.model_of.cache_clear()
    yield
    trials.exact.cache_clear()
    trials.model_of.cache_clear()


def trial(row: str, devices: int = 2) -> Trial:
    return Trial(model="digits-dit", row=row, devices=devices, count=COUNT, steps=STEPS)


def test_every_row_has_settings_that_hold() -> None:
    for row in ROWS.values():
        given = row.arguments(layers=4)
        strategy = given.pop("strategy")
        assert ResidualSettings(**given) and strategy in ("gather", "stale") and row.group in GROUPS
    assert len({row.title for row in ROWS.values()}) == len(ROWS)
    assert [row.key for row in chosen_rows(("two_bit", "whole"))] == ["whole", "two_bit"]
    with pytest.raises(ValueError, match="method must be one of"):
        chosen_rows(("three_bit",))


def test_policies_compress_what_they_say() -> None:
    chosen = {name: make("two_bit", 4) for name, make in POLICIES.items()}
    assert [chosen["keys"](0, 1, kind) for kind in "kv"] == ["two_bit", "whole"]
    assert [chosen["values"](0, 1, kind) for kind in "kv"] == ["whole", "two_bit"]
    assert [chosen["inner"](layer, 1, "k") for layer in range(4)] == ["whole", "two_bit", "two_bit", "whole"]


@pytest.mark.usefixtures("untrained")
def test_everything_whole_is_exact_and_half_of_it_is_half_of_the_bytes(tmp_path: Path) -> None:
    (whole, keys, values) = outcomes(tmp_path, [trial(row) for row in ("whole", "two_bit/keys", "two_bit/values")])
    assert whole.psnr is None and set(whole.course) == {0.0} and set(whole.errors) == {0.0}
    assert whole.ssim == pytest.approx(1.0) and whole.seen == 0.0 and whole.each == [None] * COUNT
    assert whole.sent == whole.whole == received_bytes(SHAPE, 2)
    assert keys.sent == values.sent == (received_bytes(SHAPE, 2) + received_bytes(SHAPE, 2, "two_bit")) / 2
    assert torch.equal(images_of(tmp_path, trial("whole")), exact("digits-dit", 0, COUNT, STEPS).course[-1])


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("devices", [2, 4])
def test_bytes_are_those_of_the_formula(tmp_path: Path, devices: int) -> None:
    codecs = ("one_bit", "two_bit", "low_rank:4", "low_rank_int4:8", "of_every:8")
    for codec, found in zip(codecs, outcomes(tmp_path, [trial(codec, devices) for codec in codecs]), strict=True):
        assert found.sent == received_bytes(SHAPE, devices, codec), codec
        assert found.whole == received_bytes(SHAPE, devices)
        assert len(found.errors) == len(found.course) == STEPS and found.errors[0] == 0
    (stale,) = outcomes(tmp_path, [trial("stale", devices)])
    assert stale.sent == received_bytes(SHAPE, devices, exchange="stale") and stale.error(1) is None


def test_guidance_of_two_forwards_keeps_a_trajectory_for_each() -> None:
    model, labels = lively("digits-dit"), torch.arange(COUNT)
    noise = start_noise(model, COUNT)
    plain = sample(model, labels, noise, steps=STEPS, guidance=1.5)
    with compact(model, devices=2, codec="two_bit") as compacted:
        found = sample(model, labels, noise, steps=STEPS, guidance=1.5)
        stats = compacted.stats()
    assert stats.evaluations == 2 * STEPS and stats.sent == 2 * received_bytes(SHAPE, 2, "two_bit")
    assert {key.branch for key in stats.errors} == {0, 1}
    assert psnr(found, plain) > 25


@pytest.mark.usefixtures("untrained")
def test_more_bits_and_feedback_come_closer(tmp_path: Path) -> None:
    names = ("direct:one_bit", "one_bit", "two_bit")
    direct, one, two = (found.psnr for found in outcomes(tmp_path, [trial(name) for name in names]))
    assert direct is not None and one is not None and two is not None
    assert direct < one < two


@pytest.mark.usefixtures("untrained")
def test_the_page_holds_what_the_trials_say_and_is_written_again_from_them(tmp_path: Path) -> None:
    told: list[str] = []
    settings = {
        "methods": ("whole", "stale", "one_bit", "two_bit", "two_bit/w2"), "devices": (2,), "seeds": (0, 1),
        "count": COUNT, "steps": STEPS, "loopback_seconds": None,
        "progress": lambda done, total, note: told.append(note),
    }  # fmt: skip
    pages = reproduce_compactfusion(tmp_path, **settings)  # type: ignore[arg-type]
    assert all(page.is_file() for page in pages) and len(told) == 10
    with (tmp_path / "tables" / "digits-dit-2-table.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {ROWS[key].title for key in ("whole", "stale", "one_bit", "two_bit")}
    assert rows[ROWS["whole"].title]["PSNR, dB"] == "exact"
    found = outcomes(tmp_path, [replace(trial("two_bit"), seed=seed) for seed in (0, 1)])
    mean = sum(each.psnr or 0 for each in found) / 2
    assert float(rows[ROWS["two_bit"].title]["PSNR, dB"]) == pytest.approx(mean, abs=0.051)
    share = 100 * found[0].sent / found[0].whole
    assert float(rows[ROWS["two_bit"].title]["bytes, %"]) == pytest.approx(share, abs=0.051)
    assert (tmp_path / "tables" / "cost-claims.csv").is_file()
    for name in ("quality", "errors", "course", "images"):
        assert (tmp_path / "figures" / f"digits-dit-2-{name}.png").is_file()
    told.clear()
    reproduce_compactfusion(tmp_path, **settings)  # type: ignore[arg-type]
    assert not told


def test_what_is_not_there_is_told_before_anything_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="acclimate train digits-dit"):
        reproduce_compactfusion(tmp_path / "run")
    with pytest.raises(ValueError, match="model must be one of"):
        reproduce_compactfusion(tmp_path / "run", models=("flux",))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_on_the_trained_model_methods_keep_their_distances(tmp_path: Path, devices: int) -> None:
    try:
        load_dit("digits-dit")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    names = ["stale", "direct:one_bit", "direct:two_bit", "open:one_bit", "one_bit", "two_bit", "two_bit/w2"]
    found = outcomes(tmp_path, [Trial(model="digits-dit", row=name, devices=devices) for name in names])
    psnr = {name: each.psnr or float("inf") for name, each in zip(names, found, strict=True)}
    assert psnr["one_bit"] >= psnr["open:one_bit"] + 8
    assert psnr["two_bit"] >= psnr["stale"] + 8
    assert psnr["two_bit"] >= psnr["direct:two_bit"] + 20
    assert psnr["one_bit"] >= psnr["direct:one_bit"] + 12
    assert abs(psnr["two_bit/w2"] - psnr["two_bit"]) < 1
