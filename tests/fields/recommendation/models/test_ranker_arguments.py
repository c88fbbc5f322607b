"""Presets, the finding of rankers, and what is said about arguments that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from acclimate.fields.recommendation.models import ranker as filed
from acclimate.fields.recommendation.models.architectures.fnn import FNN
from acclimate.fields.recommendation.models.architectures.rankmixer import RankMixer
from acclimate.fields.recommendation.models.ranker import Ranker, register
from acclimate.fields.recommendation.models.registry import MODELS, build

SIZES = (3, 5, 4)


def test_the_nine() -> None:
    assert set(MODELS) == {"fm", "fnn", "deepfm", "ipnn", "dcn", "dcnv2", "finalmlp", "wukong", "rankmixer"}


def test_published_options() -> None:
    deep = {"mlp_dims": [1024, 512, 256], "dropout": 0.0, "bn": False}
    crossed = {"cross": 3, **deep}
    wukong = {"n_layers": 3, "n_lcb": 16, "n_fmb": 16, "rank": 24, "fm_mlp": [512, 512], **deep}
    mixer = {"n_layers": 3, "expansion": 2, "norm": "token", "tokens": None, **deep}
    expected: dict[str, dict[str, Any]] = {
        "fm": {},
        **dict.fromkeys(("fnn", "deepfm", "ipnn"), deep),
        **dict.fromkeys(("dcn", "dcnv2"), crossed),
        "finalmlp": {"heads": 1, **deep},
        "wukong": wukong,
        "rankmixer": mixer,
    }
    with torch.device("meta"):
        made = {name: build(name, SIZES) for name in expected}
    assert {name: model.options() for name, model in made.items()} == expected
    assert {name: model.width for name, model in made.items()} == dict.fromkeys(expected, 16) | {"rankmixer": 18}


def test_small_options() -> None:
    for name in MODELS:
        model = build(name, SIZES, preset="small")
        assert model.width == (12 if name == "rankmixer" else 10)
        if name != "fm":
            assert model.options()["mlp_dims"] == [128, 64] and model.options()["dropout"] == 0.2
    wukong, mixer = (
        build("wukong", SIZES, preset="small").options(),
        build("rankmixer", SIZES, preset="small").options(),
    )
    assert [wukong[key] for key in ("n_layers", "n_lcb", "n_fmb", "rank", "fm_mlp")] == [2, 8, 8, 8, [64, 64]]
    assert (mixer["n_layers"], mixer["expansion"]) == (2, 2)


def test_a_given_option_goes_before_the_preset() -> None:
    found = build("wukong", SIZES, preset="small", rank=3, dropout=0).options()
    assert found["rank"] == 3 and found["dropout"] == 0 and found["n_layers"] == 2


@pytest.mark.parametrize(
    ("fields", "width", "tokens", "expected"),
    [(39, None, None, 39), (24, None, None, 24), (11, None, None, 22), (3, 12, None, 12), (3, 13, 5, 15), (3, 4, 4, 4)],
)
def test_rankmixer_rounds_its_width_up(fields: int, width: int | None, tokens: int | None, expected: int) -> None:
    with torch.device("meta"):
        assert build("rankmixer", [2] * fields, width=width, tokens=tokens).width == expected


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(filed._FILED)
    yield
    filed._FILED.clear()
    filed._FILED.update(before)


@pytest.mark.usefixtures("restored")
def test_a_ranker_of_ones_own_is_found_by_its_decorator() -> None:
    @register("constant")
    class Constant(Ranker):
        def __init__(self, sizes: tuple[int, ...], width: int, *, value: float = 1.0) -> None:
            super().__init__(sizes, width, value=value)
            self.value = value

        def score(self, embedded: Tensor) -> Tensor:
            return embedded.new_full((embedded.shape[0],), self.value)

    assert MODELS["constant"] is Constant
    made = build("constant", SIZES, value=2.5)
    assert made(torch.tensor([[0, 3, 8]])).tolist() == [2.5] and made.options() == {"value": 2.5}
    with pytest.raises(ValueError, match=r"the ranker 'constant' is .*Constant. Take another name"):
        register("constant")(FNN)
    with pytest.raises(ValueError, match=r"constant has no option 'rank'. Its options: value"):
        build("constant", SIZES, rank=2)


@pytest.mark.parametrize(
    ("name", "sizes", "more", "told"),
    [
        ("dcn2", SIZES, {}, r"there is no ranker 'dcn2'. Did you mean .dcnv2. or .dcn.\? There are: dcn, dcnv2, "),
        ("fnn", (), {}, "there is no field"),
        ("fnn", (3, 0), {}, r"sizes\[1\] must be a whole number of at least 1, found 0"),
        ("rankmixer", (), {}, "there is no field"),
        ("fnn", (3, 2.5), {}, r"sizes\[1\] must be a whole number"),
        ("fnn", SIZES, {"width": 0}, "width must be a whole number of at least 1, found 0"),
        ("rankmixer", SIZES, {"width": 0}, "width must be a whole number of at least 1, found 0"),
        ("fnn", SIZES, {"seed": -1}, "seed must be a whole number of at least 0"),
        ("fnn", SIZES, {"preset": "large"}, "preset must be one of 'published', 'small', found 'large'"),
        ("fnn", SIZES, {"rank": 3}, "fnn has no option 'rank'. Its options: mlp_dims, dropout, bn"),
        ("fm", SIZES, {"dropout": 0.1}, "fm has no option 'dropout'. Its options: none"),
        ("fnn", SIZES, {"mlp_dims": ()}, r"the widths of an MLP are \(\); expected one or more"),
        ("dcn", SIZES, {"mlp_dims": []}, r"the widths of an MLP are \[\]"),
        ("fnn", SIZES, {"mlp_dims": 64}, "the widths of an MLP are 64; expected one or more in a list"),
        ("fnn", SIZES, {"mlp_dims": (8, 0)}, r"dims\[1\] must be a whole number of at least 1, found 0"),
        ("fnn", SIZES, {"dropout": 1}, "dropout must be below 1"),
        ("fnn", SIZES, {"dropout": -0.1}, "dropout must lie between 0 and 1"),
        ("fnn", SIZES, {"bn": "yes"}, "bn must be one of True, False, found 'yes'"),
        ("dcn", SIZES, {"cross": 0}, "cross must be a whole number of at least 1, found 0"),
        ("finalmlp", SIZES, {"heads": 3}, r"heads=3 do not divide the last of mlp_dims=\[1024, 512, 256\]"),
        ("finalmlp", SIZES, {"heads": 0}, "heads must be a whole number"),
        ("wukong", SIZES, {"n_fmb": 0}, "n_fmb must be a whole number of at least 1"),
        ("wukong", SIZES, {"fm_mlp": (0,)}, r"dims\[0\] must be a whole number of at least 1"),
        ("rankmixer", SIZES, {"norm": "batch"}, "norm must be one of 'token', 'tensor', found 'batch'"),
        ("rankmixer", SIZES, {"expansion": 0}, "expansion must be a finite number above 0"),
        ("rankmixer", SIZES, {"tokens": 0}, "tokens must be a whole number of at least 1"),
    ],
)
def test_wrong_arguments(name: str, sizes: Any, more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build(name, sizes, **more)


def test_rankmixer_itself_takes_no_width_between_multiples() -> None:
    with pytest.raises(ValueError, match="width=13 is no multiple of the 3 tokens; expected 15, say"):
        RankMixer(SIZES, 13)


def test_options_are_a_copy() -> None:
    model = build("fnn", SIZES, preset="small")
    model.options()["mlp_dims"].append(3)
    assert model.options()["mlp_dims"] == [128, 64]
