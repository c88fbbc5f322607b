"""Settings that a strategy makes nothing of are refused; where none is chosen, the codec is the strategy's own."""

from __future__ import annotations

from typing import Any

import pytest

from acclimate.compression import OneBit, TwoBit, Whole
from acclimate.fields.diffusion.exchange.strategies import STRATEGIES, build
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.exchange.ulysses import Ulysses
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.fields.diffusion.residual.suited import suited

EXACT = ("stale", "ulysses")


def everything_whole(layer: int, step: int, kind: str) -> str:
    return "whole"


@pytest.mark.parametrize("strategy", [*STRATEGIES, Ulysses("kv")])
def test_a_codec_that_nobody_chose_is_the_strategy_s(strategy: str | Strategy) -> None:
    for given in (ResidualSettings(), ResidualSettings(warmup=3)):
        found = suited(given, build(strategy).config())
        assert found.codec == (Whole() if strategy in EXACT else TwoBit()) and found.warmup == given.warmup
        assert suited(found, build(strategy).config()) == found
    assert ResidualSettings().chosen(0, 5, "k") == TwoBit()


@pytest.mark.parametrize("wrong", [
    {"codec": "one_bit"}, {"codec": "two_bit"}, {"checksum_every": 2}, {"order": 2}, {"feedback": False},
    {"refresh_every": 3}, {"own_block": "reconstructed"}, {"drift_decay": 0.9}, {"policy": everything_whole},
])  # fmt: skip
@pytest.mark.parametrize("strategy", EXACT)
def test_what_has_no_effect_is_refused(strategy: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"found {next(iter(wrong))}=.*'{strategy}'.*'gather' or 'ring'"):
        suited(ResidualSettings(**wrong), build(strategy).config())
    for other in ("gather", "ring"):
        suited(ResidualSettings(**wrong), build(other).config())


def test_slices_that_are_compressed_take_a_codec_but_nothing_to_compare() -> None:
    compressing = Ulysses("kv").config()
    assert suited(ResidualSettings(codec="one_bit", order=2, refresh_every=3), compressing).codec == OneBit()
    for wrong in ({"checksum_every": 2}, {"own_block": "reconstructed"}):
        with pytest.raises(ValueError, match=f"found {next(iter(wrong))}=.*'ulysses', which makes nothing of it"):
            suited(ResidualSettings(**wrong), compressing)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"found checksum_every=2, own_block='reconstructed' .* of them"):
        suited(ResidualSettings(checksum_every=2, own_block="reconstructed"), compressing)
