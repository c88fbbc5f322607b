"""Loaders as streams."""

import json
import logging
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from acclimate.streams import Segment, from_loader

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1])


def test_a_data_loader():
    stream = from_loader(
        DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2),
        name="camera",
        segment=Segment("rain", 3),
        classes="abc",
    )
    batches = list(stream)
    assert len(stream) == 3 and stream.batch_size == 2 and stream.classes == ("a", "b", "c")
    assert stream.segments == (Segment("rain", 3),) and stream.image_shape == (3, 8, 8)
    assert torch.equal(torch.cat([b.images for b in batches]), IMAGES)
    assert [b.labels.tolist() for b in batches] == [[0, 1], [2, 0], [1]]
    assert [b.index.tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    assert [b.position for b in batches] == [0, 1, 2]
    assert json.dumps(stream.protocol())


@pytest.mark.parametrize(
    "item",
    [
        (IMAGES, LABELS),
        [IMAGES, LABELS.tolist()],
        (IMAGES, LABELS.to(torch.uint8), "more"),
        {"images": IMAGES, "labels": LABELS},
        {"pixel_values": IMAGES.double(), "target": LABELS.numpy()},
        ((IMAGES * 255).round().to(torch.uint8), LABELS),
    ],
)
def test_forms_of_batches(item: object):
    (batch,) = from_loader([item])
    assert batch.images.dtype == torch.float32
    assert torch.allclose(batch.images, IMAGES, atol=0.003)
    assert batch.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("item", [IMAGES, (IMAGES,), {"x": IMAGES}, (IMAGES, None)])
def test_labels_are_optional(item: object):
    (batch,) = from_loader([item])
    assert batch.labels.tolist() == [-1] * 5


class Camera:
    """Batches without a length."""

    def __init__(self, passes: list[torch.Tensor]) -> None:
        self.passes = passes

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield self.passes.pop(0) if len(self.passes) > 1 else self.passes[0]


def test_the_length_may_be_unknown():
    stream = from_loader(Camera([IMAGES]))
    assert len(list(stream)) == 1
    with pytest.raises(TypeError, match="does not say how many"):
        len(stream)


def test_fingerprints_are_of_the_batches():
    first = from_loader([IMAGES]).fingerprint()
    assert from_loader([IMAGES.clone()]).fingerprint() == first
    others = [
        from_loader([1 - IMAGES]),
        from_loader([(IMAGES, LABELS)]),
        from_loader([IMAGES[:3], IMAGES[3:]]),
        from_loader([IMAGES], name="other"),
        from_loader([IMAGES], segment="rain"),
    ]
    assert first not in {stream.fingerprint() for stream in others}


def test_other_batches_at_the_second_pass_are_noticed(caplog: pytest.LogCaptureFixture):
    stream = from_loader(Camera([IMAGES, 1 - IMAGES]), name="camera")
    with caplog.at_level(logging.WARNING, "acclimate"):
        list(stream)
        assert not caplog.records
        list(stream)
    assert "other batches than at its first pass" in caplog.text


def test_what_can_be_read_once_is_refused():
    with pytest.raises(ValueError, match="is a generator, which can be read only once"):
        from_loader(item for item in [IMAGES])


def test_normalised_loaders_must_be_announced():
    shifted = IMAGES * 4 - 2
    with pytest.raises(ValueError, match=r"expected \[0, 1\].*normalised=True"):
        list(from_loader([shifted]))
    stream = from_loader([shifted], normalised=True)
    assert torch.equal(next(iter(stream)).images, shifted)
    assert stream.protocol()["normalisation"] == "by the loader"


def test_values_that_are_no_numbers_reach_the_guard():
    broken = IMAGES.clone()
    broken[0, 0, 0, 0] = torch.nan
    (batch,) = from_loader([broken])
    assert batch.images.isnan().sum() == 1


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("text", "gives str; expected"),
        (7, "gives int; expected"),
        ({"audio": IMAGES}, r"keys \['audio'\]; expected images under one of images"),
        ((IMAGES[0], LABELS), r"a tensor \[3, 8, 8\] as images"),
        ((IMAGES[:0], LABELS[:0]), r"tensor \[0, 3, 8, 8\]"),
        ((IMAGES.numpy(), LABELS), "ndarray as images"),
        ((IMAGES.long(), LABELS), "gives torch.int64 images; expected floats or uint8"),
        ((IMAGES, LABELS[:4]), r"labels torch.int64 \[4\]; expected whole numbers \[5\]"),
        ((IMAGES, LABELS.float()), "labels torch.float32"),
        ((IMAGES, LABELS + 1), "label 3, but classes names only 3"),
    ],
)
def test_bad_batches_are_refused(item: object, message: str):
    with pytest.raises(ValueError, match=message):
        list(from_loader([item], classes=("a", "b", "c")))


def test_an_empty_loader_has_no_image_shape():
    with pytest.raises(ValueError, match="gives no batch"):
        _ = from_loader([]).image_shape
