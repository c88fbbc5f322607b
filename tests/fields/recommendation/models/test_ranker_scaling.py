"""Larger rankers: how close they come, and what grows."""

from __future__ import annotations

from typing import Any

import pytest

from acclimate.fields.recommendation.models.counting import cost_of
from acclimate.fields.recommendation.models.registry import MODELS, build
from acclimate.fields.recommendation.models.scaling import KINDS, scaled

SIZES = [5] * 10
DEEP = sorted(set(MODELS) - {"fm"})


def multiply_adds(name: str, width: int | None = None, **options: Any) -> int:
    return cost_of(build(name, SIZES, width=width, preset="small", **options)).multiply_adds


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("name", DEEP)
def test_wider_by_what_was_asked(name: str, factor: int) -> None:
    options, width, reached = scaled(name, SIZES, "width", factor)
    base = build(name, SIZES, preset="small")
    assert reached == pytest.approx(factor, rel=0.05)
    assert reached == multiply_adds(name, width, **options) / multiply_adds(name)
    assert width == base.width and options.keys() == base.options().keys()
    assert all(size % 8 == 0 for size in options["mlp_dims"])
    stretch = [wide / size for wide, size in zip(options["mlp_dims"], base.options()["mlp_dims"], strict=True)]
    assert min(stretch) > 1 and max(stretch) / min(stretch) < 1.1


@pytest.mark.parametrize("factor", [1.5, 2, 4])
@pytest.mark.parametrize("name", DEEP)
def test_deeper_by_what_was_asked_or_just_more(name: str, factor: float) -> None:
    options, width, reached = scaled(name, SIZES, "depth", factor)
    base = build(name, SIZES, preset="small").options()
    assert reached == multiply_adds(name, width, **options) / multiply_adds(name)
    assert reached > 0.95 * factor
    if reached > 1.05 * factor:  # a layer less is too little by as much
        less = build(name, SIZES, preset="small").deepened(base, _steps(base, options) - 1)
        assert multiply_adds(name, width, **less) / multiply_adds(name) < 0.95 * factor
    assert _steps(base, options) > 0


def _steps(base: dict[str, Any], options: dict[str, Any]) -> int:
    grown = {key: options[key] - base[key] for key in ("cross", "n_layers") if key in base}
    return next(iter(grown.values()), len(options["mlp_dims"]) - len(base["mlp_dims"]))


@pytest.mark.parametrize(("factor", "layers"), [(1.01, 1), (1.2, 2), (1.7, 2), (1.8, 3), (2.2, 3), (2.5, 4)])
def test_steps_too_large_to_come_close_go_above(factor: float, layers: int) -> None:
    options, _, reached = scaled("fnn", SIZES, "depth", factor, mlp_dims=[64])
    assert options["mlp_dims"] == [64] * layers
    assert reached == (100 * 64 + (layers - 1) * 64 * 64 + 64) / (100 * 64 + 64)


def test_what_grows_with_depth() -> None:
    small = [128, 64]
    assert scaled("fnn", SIZES, "depth", 2)[0]["mlp_dims"] == [*small, *[64] * 5]
    dcnv2 = scaled("dcnv2", SIZES, "depth", 2)[0]
    assert dcnv2["mlp_dims"] == small and dcnv2["cross"] == 8  # 10,000 each beside 52,200
    dcn = scaled("dcn", SIZES, "depth", 2)[0]
    assert dcn["cross"] == 8 and dcn["mlp_dims"] == [*small, *[64] * 5]
    for name in ("wukong", "rankmixer"):
        options = scaled(name, SIZES, "depth", 2)[0]
        assert options["n_layers"] > 2 and options["mlp_dims"] == small


def test_what_grows_with_width() -> None:
    wukong = scaled("wukong", SIZES, "width", 4)[0]
    assert wukong["n_lcb"] == wukong["n_fmb"] == wukong["rank"] > 8 and min(wukong["fm_mlp"]) > 64
    assert scaled("rankmixer", SIZES, "width", 4)[0]["expansion"] > 2
    assert scaled("finalmlp", SIZES, "width", 2, heads=3, mlp_dims=[24, 12])[0]["mlp_dims"][-1] % 24 == 0


@pytest.mark.parametrize("name", MODELS)
def test_a_wider_embedding_and_what_it_comes_to(name: str) -> None:
    options, width, reached = scaled(name, SIZES, "embedding", 2)
    assert width == 20 and options == build(name, SIZES, preset="small").options()
    assert reached == multiply_adds(name, 20) / multiply_adds(name)
    if name == "fnn":  # by hand: the first layer alone
        assert reached == (200 * 128 + 128 * 64 + 64) / (100 * 128 + 128 * 64 + 64)


def test_rankmixer_embeds_in_multiples_of_its_tokens() -> None:
    assert scaled("rankmixer", [5] * 7, "embedding", 1.5)[1] == 21  # of 14


@pytest.mark.parametrize("kind", KINDS)
def test_one_is_the_base_itself(kind: str) -> None:
    options = {"mlp_dims": [50, 20], "dropout": 0.1}
    expected = build("ipnn", SIZES, width=7, preset="small", **options).options()
    assert scaled("ipnn", SIZES, kind, 1, width=7, **options) == (expected, 7, 1.0)


def test_the_published_preset_scales_too() -> None:
    options, width, reached = scaled("fnn", SIZES, "width", 2, preset="published")
    assert width == 16 and options["mlp_dims"][0] > 1024 and reached == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    ("name", "kind", "factor", "told"),
    [
        ("fnn", "breadth", 2, "kind must be one of 'width', 'depth', 'embedding', found 'breadth'"),
        ("fnn", "width", 0.5, "factor must be at least 1, found 0.5"),
        ("fnn", "width", float("inf"), "factor must be a finite number"),
        ("fnn", "width", float("nan"), "factor must be a finite number"),
        ("fm", "width", 2, "fm has no layers"),
        ("fm", "depth", 2, "fm has no layers"),
        ("nought", "width", 2, "there is no ranker 'nought'"),
    ],
)
def test_wrong_arguments(name: str, kind: str, factor: float, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        scaled(name, SIZES, kind, factor)
