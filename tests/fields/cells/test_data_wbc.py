"""The four laboratories: on the real archives, and on small ones made by hand."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from acclimate.fields.cells.data.classes import COMMON, FOUR
from acclimate.fields.cells.data.wbc import LABORATORIES, laboratories

COUNTS = {
    "jtsc": [176, 53, 48, 22, 1],
    "cellavision": [33, 37, 15, 12, 3],
    "chula": [112, 111, 88, 100, 100],
    "bccd": [202, 33, 20, 84, 2],
}


@pytest.mark.real_data
def test_counts_are_those_of_the_sources(shared: Path) -> None:
    labs = laboratories()
    assert tuple(labs) == LABORATORIES
    for name, lab in labs.items():
        assert lab.classes == COMMON
        assert torch.bincount(lab.labels).tolist() == COUNTS[name]
        assert lab.images.shape == (sum(COUNTS[name]), 3, 128, 128)
        assert bool(lab.masked.all()) == bool(lab.masked.any()) == (name in ("jtsc", "cellavision"))
        assert len(lab.of_classes(FOUR).dataset()) == sum(COUNTS[name][:4])
    assert laboratories(data=shared / "data")["bccd"].images is labs["bccd"].images, "decoded once"


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["jtsc", "cellavision"])
def test_masks_lie_on_the_cells(shared: Path, name: str) -> None:
    """Boxes are centred and fill 1 / 1.25 of the picture; nuclei are darker than all else.

    Shifted by an eighth of the picture, masks separate dark from bright less well.
    """
    lab = laboratories()[name]
    assert lab.masks is not None
    grey, masks = lab.images.float().mean(1), lab.masks

    def darker(mask: Tensor) -> Tensor:
        inner, outer = mask == 2, mask != 2
        return (grey * outer).sum((1, 2)) / outer.sum((1, 2)) - (grey * inner).sum((1, 2)) / inner.sum((1, 2))

    for mask in masks > 0:
        across, down = mask.any(0).nonzero().flatten(), mask.any(1).nonzero().flatten()
        assert abs(max(len(across), len(down)) - 128 / 1.25) <= 1.5
        assert abs(across.double().mean() - 63.5) <= 1
        assert abs(down.double().mean() - 63.5) <= 1
    assert (darker(masks) > 0).all()
    for step in ((16, 0), (0, 16), (-16, 0), (0, -16)):
        assert (darker(masks) > darker(masks.roll(step, (1, 2)))).all()


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["jtsc", "cellavision"])
def test_crops_are_the_stored_ones_in_the_same_order(shared: Path, name: str) -> None:
    """Each stored crop is nearest to its own picture, up to three pixels shifted; but some cells are there twice."""
    with np.load(shared / "data/wbc4_crops.npz") as archive:
        jpeg, offset = archive[f"{name}_jpeg"].tobytes(), archive[f"{name}_offset"]
    files = [Image.open(BytesIO(jpeg[start:end])) for start, end in pairwise(offset)]
    stored = torch.from_numpy(np.stack([np.asarray(file) for file in files])).permute(0, 3, 1, 2).float()
    images = laboratories()[name].images.float()
    small = nn.functional.avg_pool2d
    wanted = small(stored[:, :, 16:-16, 16:-16], 8).flatten(1)
    distances = torch.stack([
        torch.cdist(wanted, small(images[:, :, 16 + y : 112 + y, 16 + x : 112 + x], 8).flatten(1))
        for y in (-2, 0, 2) for x in (-2, 0, 2)
    ]).amin(0)  # fmt: skip
    assert (distances.argmin(1) == torch.arange(len(images))).double().mean() > 0.98
    assert (distances.argsort(1)[:, :2] == torch.arange(len(images))[:, None]).any(1).all()


@pytest.mark.real_data
def test_nothing_is_black_at_the_edges(shared: Path) -> None:
    for lab in laboratories().values():
        edges = lab.images.amax(1).double()
        lines = torch.stack((edges[:, 0], edges[:, -1], edges[:, :, 0], edges[:, :, -1])).mean(2)
        assert lines.min() > 16


def pack(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    files: list[bytes] = []
    for picture in pictures:
        file = BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        files.append(file.getvalue())
    ends = np.cumsum([0, *map(len, files)])
    return np.frombuffer(b"".join(files), dtype=np.uint8), ends


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two cells for each laboratory: with masks a box of 8x6 in 20x16 pixels, stray grey about it."""
    names = np.array(["", *COMMON])
    image, mask = np.full((20, 16, 3), 200, dtype=np.uint8), np.zeros((20, 16), dtype=np.uint8)
    mask[6:14, 5:11], mask[8:12, 6:9], mask[0, 0], mask[9, 4] = 128, 255, 7, 63
    image[mask > 100] = 50
    for name in ("tecom", "cellavision"):
        images, masks = pack([image, image]), pack([mask, mask.copy()])
        np.savez(
            tmp_path / f"wbc_{name}.npz", image_png=images[0], image_offset=images[1], mask_png=masks[0],
            mask_offset=masks[1], label=np.array([1, 5], dtype=np.uint8), classes=names,
        )  # fmt: skip
    crops = {"classes": names}
    for name in LABORATORIES:
        data, offset = pack([np.full((128, 128, 3), 90, dtype=np.uint8)] * 2)
        crops |= {f"{name}_jpeg": data, f"{name}_offset": offset, f"{name}_label": np.array([2, 4], dtype=np.uint8)}
    np.savez(tmp_path / "wbc4_crops.npz", **crops)
    return tmp_path


def test_archives_made_by_hand(small: Path) -> None:
    """The window is 10 pixels, so at size 10 image and mask are slices: rows 5 to 14, columns 3 to 12."""
    labs = laboratories(size=10, data=small)
    lab = labs["jtsc"]
    expected = torch.zeros(10, 10, dtype=torch.int8)
    expected[1:9, 2:8] = 1
    expected[3:7, 3:6] = 2
    assert lab.masks is not None
    assert torch.equal(lab.masks[0], expected)
    assert torch.equal(lab.images[0, 0] == 50, expected > 0)
    assert lab.labels.tolist() == [0, 4]
    assert lab.keys == ("jtsc/000", "jtsc/001")
    assert labs["chula"].labels.tolist() == [1, 3]
    assert (labs["chula"].images == 90).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.array([1, 6])}, "2 labels for 2 images"),
        ({"label": np.array([0, 1])}, "2 labels for 2 images"),
        ({"label": np.array([1])}, "1 labels for 2 images"),
        ({"classes": np.array(["", "a", "b"])}, "of the classes a, b; expected"),
        ({"image_png": np.zeros(900, dtype=np.uint8)}, "File 0 of image_png"),
        ({"label": None}, "expected the arrays image_png"),
    ],
)
def test_damaged_archives_are_named(small: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    path = small / "wbc_tecom.npz"
    with np.load(path) as archive:
        stored = {**archive, **change}
    np.savez(path, **{name: array for name, array in stored.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        laboratories(data=small)


def test_archives_that_are_missing(small: Path) -> None:
    (small / "wbc4_crops.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="not a readable archive"):
        laboratories(data=small)
    (small / "wbc4_crops.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no wbc4_crops\.npz"):
        laboratories(data=small)
