"""Bytes of the published settings, and the formula element by element."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.fields.diffusion.cost import SHAPES, ModelShape, base_bytes, packet_bytes, received_bytes

FLUX = SHAPES["flux.1-dev"]


@pytest.mark.parametrize(
    ("codec", "expected"),
    [("whole", 6_684_672), ("two_bit", 843_904), ("one_bit", 426_112), ("low_rank:8", 66_560),
     ("low_rank_int4:32", 66_816), ("of_every:8", 1_044_480)],
)  # fmt: skip
def test_one_tensor_of_flux_on_four_devices(codec: str, expected: int) -> None:
    assert FLUX.rows(4) == 1088
    assert packet_bytes(FLUX, 4, codec) == expected


@pytest.mark.parametrize(
    ("codec", "expected"),
    [("whole", 64_012_419_072), ("two_bit", 10_078_767_360), ("one_bit", 6_220_876_032),
     ("low_rank_int4:32", 2_903_136_768)],
)  # fmt: skip
def test_an_image_of_flux_on_four_devices(codec: str, expected: int) -> None:
    assert received_bytes(FLUX, 4, codec) == expected
    assert received_bytes(FLUX, 4, codec, exchange="ring") == expected


def test_shares_that_are_quoted() -> None:
    image_alone = replace(FLUX, stretches=(4096,))
    assert received_bytes(image_alone, 4) == 60_246_982_656  # "about 60 GB"
    warmup = received_bytes(replace(FLUX, steps=1), 4)
    assert warmup == 2_286_157_824
    assert warmup / received_bytes(FLUX, 4, "one_bit") == pytest.approx(0.37, abs=0.005)
    assert warmup / received_bytes(FLUX, 4, "low_rank_int4:32") == pytest.approx(0.79, abs=0.005)
    assert received_bytes(FLUX, 4, exchange="ulysses") == received_bytes(FLUX, 4) // 2


def test_what_devices_keep() -> None:
    found = {name: round(base_bytes(SHAPES[name], 1) / 1e9, 2) for name in ("flux.1-dev", "pixart-alpha")}
    assert found == {"flux.1-dev": 3.05, "pixart-alpha": 0.53}
    assert base_bytes(SHAPES["cogvideox-2b"], 2) / 1e9 == pytest.approx(4.1, abs=0.01)
    assert base_bytes(FLUX, 4) == base_bytes(FLUX, 1)  # regardless of how many share


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 9), st.integers(0, 12), st.integers(1, 3))
def test_it_is_what_counting_messages_one_by_one_gives(
    layers: int, devices: int, steps: int, warmup: int, copies: int
) -> None:
    shape = ModelShape(
        name="any", layers=layers, channels=16, stretches=(24, 5), steps=steps, warmup=warmup, copies=copies
    )
    rows = copies * (len(range(0, 24, devices)) + len(range(0, 5, devices)))
    counted = 0
    for step in range(steps):
        whole = step < warmup
        for _ in range(layers * 2 * (devices - 1)):
            counted += rows * 16 * 2 if whole else rows * 16 // 8 + 2 * rows + 2 * 16
    assert shape.rows(devices) == rows
    assert received_bytes(shape, devices, "one_bit") == counted


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="exchange must be one of"):
        received_bytes(FLUX, 4, exchange="mail")
    for exchange in ("stale", "ulysses"):
        with pytest.raises(ValueError, match=f"{exchange} with codec 'two_bit'.*gather or ring"):
            received_bytes(FLUX, 4, "two_bit", exchange=exchange)
    assert received_bytes(FLUX, 4, exchange="stale") == received_bytes(FLUX, 4)
    with pytest.raises(ValueError, match="channels"):
        received_bytes(FLUX, 5, exchange="ulysses")
    with pytest.raises(ValueError, match="devices"):
        FLUX.rows(0)
    with pytest.raises(ValueError, match="layers"):
        replace(FLUX, layers=0)
