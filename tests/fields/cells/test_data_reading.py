"""Every kind of image file: what becomes of it and what is said."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acclimate.fields.cells.data.depth import eight_bits
from acclimate.fields.cells.data.reading import read

PICTURE = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
GREY = PICTURE[..., 0]


def deep_png(path: Path, values: np.ndarray, kind: int) -> Path:
    """A PNG of 16 bits a channel, written by hand: kind 0 grey, 2 colour."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def pixels(path: Path, said: str) -> np.ndarray:
    reading = read(path)
    assert reading.pixels is not None, reading.what
    assert reading.pixels.dtype == np.uint8
    assert said in reading.what if said else not reading.what
    return reading.pixels


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_usual_files_are_read_without_a_word(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PICTURE).save(path)
    assert np.array_equal(pixels(path, ""), PICTURE)


def test_grey_is_repeated(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png", "grey-scale"), GREY[..., None].repeat(3, 2))


def test_transparency_shows_what_it_is_laid_over(tmp_path: Path) -> None:
    clear = np.dstack((PICTURE, np.full((12, 10), 255, dtype=np.uint8)))
    clear[:, :5, 3] = 0
    clear[0, 9] = (0, 0, 0, 51)
    Image.fromarray(clear).save(tmp_path / "a.png")
    found = pixels(tmp_path / "a.png", "has an alpha channel, laid over white")
    assert (found[:, :5] == 255).all()
    assert np.array_equal(found[1:, 5:], PICTURE[1:, 5:])
    assert (found[0, 9] == 204).all()
    over_black = read(tmp_path / "a.png", ground=0)
    assert over_black.pixels is not None
    assert (over_black.pixels[:, :5] == 0).all()
    assert "black" in over_black.what


def test_grey_with_alpha_is_both(tmp_path: Path) -> None:
    Image.fromarray(np.dstack((GREY, GREY)), "LA").save(tmp_path / "a.png")
    assert "alpha" in read(tmp_path / "a.png").what
    assert "grey-scale" in read(tmp_path / "a.png").what


@pytest.mark.parametrize(
    ("high", "scale", "said"),
    [(60000, 65535, "16 bits, scaled by 65535"), (4095, 4095, "scaled by 4095"), (255, 255, "taken as 8 bits")],
)
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path: Path, high: int, scale: int, said: str, suffix: str) -> None:
    values = np.linspace(0, high, 120).round().astype(np.uint16).reshape(12, 10)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        deep_png(path, values, 0)
    else:
        Image.fromarray(values).save(path)
    expected = np.rint(values / scale * 255)
    assert np.array_equal(pixels(path, said), expected[..., None].repeat(3, 2))
    assert "grey-scale" in read(path).what


def test_sixteen_bits_a_colour(tmp_path: Path) -> None:
    values = PICTURE.astype(np.uint16) * 257
    assert np.array_equal(pixels(deep_png(tmp_path / "a.png", values, 2), "the upper 8 are taken"), PICTURE)
    dim = read(deep_png(tmp_path / "b.png", values // 16, 2))
    assert dim.pixels is None
    assert "at most 12 of them" in dim.what


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_scaling_keeps_order_and_range(values: list[int]) -> None:
    scaled, _ = eight_bits(np.array([values], dtype=np.uint16))
    order = np.argsort(values)
    assert (np.diff(scaled[0, order].astype(int)) >= 0).all()
    assert (scaled == 0)[0][np.array(values) == 0].all()


@pytest.mark.parametrize(("high", "said"), [(1.0, "scaled by 1"), (65535.0, "scaled by 65535")])
def test_fractions(tmp_path: Path, high: float, said: str) -> None:
    values = np.linspace(0, high, 120, dtype=np.float32).reshape(12, 10)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert pixels(tmp_path / "a.tiff", said).max() == 255


def test_fractions_a_little_above_one_are_fractions(tmp_path: Path) -> None:
    """Resampling overshoots; a white ground at 1.002 is white, not black."""
    values = np.linspace(0, 1.002, 120, dtype=np.float32).reshape(12, 10)
    values[6:] = 1.002
    Image.fromarray(values).save(tmp_path / "a.tiff")
    found = pixels(tmp_path / "a.tiff", "holds fractions, scaled by 1, 60 pixels above that made white")
    assert np.array_equal(found[..., 0], np.rint(values.clip(0, 1).astype(np.float64) * 255))


@pytest.mark.parametrize(
    ("high", "scale", "said"),
    [(4000, 4095, "12 bits in 16, scaled by 4095"), (250, 255, "taken as 8 bits")],
)
def test_hot_pixels_do_not_darken_a_picture(tmp_path: Path, high: int, scale: int, said: str) -> None:
    """Nine of 2000 are below half a percent; eleven are a range of their own."""
    values = np.linspace(0, high, 2000).round().astype(np.uint16).reshape(40, 50)
    expected = np.rint(values / scale * 255)
    for hot, rule in ((9, True), (11, False)):
        values[20, :hot], expected[20, :hot] = 65535, 255
        path = deep_png(tmp_path / f"{hot}.png", values, 0)
        found = pixels(path, f"{said}, {hot} pixels above that made white" if rule else "16 bits, scaled by 65535")
        assert np.array_equal(found[..., 0], expected) == rule
        assert found[..., 0].max() == 255


def test_colours_of_twelve_bits_with_a_hot_pixel_are_still_refused(tmp_path: Path) -> None:
    values = np.full((40, 50, 3), 2000, dtype=np.uint16)
    values[:20], values[3, 3] = 900, 65535
    dim = read(deep_png(tmp_path / "a.png", values, 2))
    assert dim.pixels is None and "at most 12 of them" in dim.what


@pytest.mark.parametrize("bad", [np.nan, -3.0, 70000.0])
def test_impossible_values_are_refused(tmp_path: Path, bad: float) -> None:
    values = np.zeros((12, 10), dtype=np.float32)
    values[3, 3] = bad
    Image.fromarray(values).save(tmp_path / "a.tiff")
    reading = read(tmp_path / "a.tiff")
    assert reading.pixels is None
    assert "expected 0 to 65535" in reading.what


def test_palette_bits_and_cmyk(tmp_path: Path) -> None:
    red = Image.new("P", (10, 12), 1)
    red.putpalette([0, 0, 0, 250, 10, 20])
    red.putpixel((0, 0), 0)
    red.save(tmp_path / "p.png")
    assert pixels(tmp_path / "p.png", "has a palette")[3, 3].tolist() == [250, 10, 20]
    Image.fromarray(GREY > 100).save(tmp_path / "b.png")
    assert set(np.unique(pixels(tmp_path / "b.png", "one bit"))) == {0, 255}
    Image.new("CMYK", (10, 12), (255, 0, 0, 0)).save(tmp_path / "c.tiff")
    assert pixels(tmp_path / "c.tiff", "CMYK")[3, 3].tolist() == [0, 255, 255]


def test_the_first_of_several_frames(tmp_path: Path) -> None:
    first, second = Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)
    first.save(tmp_path / "a.tiff", save_all=True, append_images=[second])
    assert np.array_equal(pixels(tmp_path / "a.tiff", "has 2 frames, the first is taken"), PICTURE)


def test_extreme_sizes(tmp_path: Path) -> None:
    for name, size in (("thin", (100, 7)), ("long", (8193, 9)), ("band", (41, 10)), ("fine", (40, 10))):
        Image.effect_noise(size, 50).convert("RGB").save(tmp_path / f"{name}.png")
    assert read(tmp_path / "thin.png").what == "is 100x7 pixels, expected at least 8 a side"
    assert read(tmp_path / "long.png").what == "is 8193x9 pixels, expected at most 8192 a side"
    assert read(tmp_path / "thin.png").pixels is read(tmp_path / "long.png").pixels is None
    assert pixels(tmp_path / "band.png", "more than 4 to 1").shape == (10, 41, 3)
    assert pixels(tmp_path / "fine.png", "").shape == (10, 40, 3)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_bombs_are_not_decoded(tmp_path: Path, side: int) -> None:
    """A file of a few hundred bytes that says it unfolds to gigabytes."""
    path = deep_png(tmp_path / "a.png", np.zeros((8, 8), dtype=np.uint16), 0)
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = path.read_bytes()
    path.write_bytes(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])
    reading = read(path)
    assert reading.pixels is None
    assert "at most 8192 a side" in reading.what


def test_one_colour_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (10, 12), (255, 255, 255)).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png", "of one colour") == 255).all()


def test_no_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "folder.png").mkdir()
    said = {name: read(tmp_path / f"{name}.png") for name in ("empty", "text", "folder", "absent")}
    assert all(reading.pixels is None for reading in said.values())
    assert said["empty"].what == "is empty (0 bytes)"
    assert said["text"].what == "is not a readable image"
    assert said["folder"].what == said["absent"].what == "is no file"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".bmp", ".webp"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_damage_never_escapes(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject) -> None:
    """Cut short or with bytes changed, a file is read or refused, but raises nothing."""
    path = tmp_path_factory.mktemp("damage") / f"a{suffix}"
    Image.fromarray(PICTURE).save(path)
    whole = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
    reading = read(path)
    assert reading.pixels is None or reading.pixels.shape[2] == 3
    assert reading.pixels is not None or reading.what


def test_a_jpeg_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:900])
    reading = read(path)
    assert reading.pixels is None
    assert "cannot be decoded" in reading.what
