"""The published composition, on folders made in its layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.streams import CLEAN, Segment, open_stream

Image = pytest.importorskip("PIL.Image")

SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361")
FEW = (SYNSETS[1], SYNSETS[3])
SHIFTS = ("fog", "snow")


def picture(path: Path, size: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("potpourri")
    for shift in SHIFTS:
        for number, synset in enumerate(SYNSETS):
            picture(folder / "imagenet-c" / shift / "5" / synset / f"{number}.png", (224, 224), number)
    for place, (name, classes) in enumerate(
        {"imagenet-r": FEW, "imagenet-a": FEW[:1], "imagenet-sketch": SYNSETS, "imagenet": SYNSETS}.items()
    ):
        for number, synset in enumerate(classes):
            for copy in range(3):
                picture(folder / name / synset / f"{copy}.png", (300, 260), 100 * place + 10 * number + copy)
    return folder


def test_it_is_composed_as_published(root: Path):
    stream = open_stream(f"potpourri:{root}", corruptions=SHIFTS)
    composition = stream.composition()
    assert composition.names == (*SHIFTS, "imagenet-r", "imagenet-sketch", "imagenet-a")
    assert composition.images == (4, 4, 6, 12, 3)
    assert composition.published == (50_000, 50_000, 30_000, 50_889, 7_500)
    assert stream.classes == SYNSETS and stream.batch_size == 64 and stream.image_shape == (3, 224, 224)
    assert stream.source is None and not list(stream.held_out())
    assert stream.segments == (Segment("potpourri", 0),)


def test_the_whole_published_composition_adds_up():
    """15 x 50,000 + 30,000 + 50,889 + 7,500, and 50,000 more with the source."""
    from acclimate.streams import potpourri

    total = 15 * potpourri._VALIDATION + sum(potpourri._VARIANTS.values())
    assert (total, total + potpourri._VALIDATION) == (838_389, 888_389)


def test_labels_are_found_by_the_names_of_folders(root: Path):
    stream = open_stream(f"potpourri:{root}", corruptions=SHIFTS)
    found: dict[str, list[int]] = {}
    for batch in stream:
        for domain, label in zip(batch.domains.tolist(), batch.labels.tolist(), strict=True):
            found.setdefault(stream.domains[domain].name, []).append(label)
    assert sorted(found["imagenet-r"]) == [1, 1, 1, 3, 3, 3]
    assert found["imagenet-a"] == [1, 1, 1]
    assert sorted(found["imagenet-sketch"]) == sorted([0, 1, 2, 3] * 3)
    assert sorted(found["fog"]) == [0, 1, 2, 3]


def test_the_source_comes_with_the_plus(root: Path):
    stream = open_stream(f"potpourri+:{root}", corruptions=SHIFTS, held_out=0.25)
    assert stream.source == CLEAN
    assert stream.composition().images == (4, 4, 6, 12, 3, 9)
    assert stream.composition().published[-1] == 50_000
    assert sum(len(batch.images) for batch in stream.held_out()) == 3
    assert open_stream(f"potpourri+:{root}", corruptions=SHIFTS, held_out=0).composition().images[-1] == 12


def test_corrupted_images_are_taken_as_they_are_and_others_resized(root: Path):
    stream = open_stream(f"potpourri:{root}", corruptions=["fog"])
    for batch in stream:
        for domain, index, label, image in zip(batch.domains, batch.index, batch.labels, batch.images, strict=True):
            name = stream.domains[int(domain)].name
            if name == "fog":
                synset = SYNSETS[int(label)]
                with Image.open(root / f"imagenet-c/fog/5/{synset}/{int(index)}.png") as stored:
                    assert torch.equal(
                        (image * 255).round().to(torch.uint8), torch.from_numpy(np.array(stored)).permute(2, 0, 1)
                    )
            if name == "imagenet-a":
                files = sorted((root / "imagenet-a" / FEW[0]).iterdir())
                with Image.open(files[(int(index) - 4 - 6 - 12) % 3]) as stored:
                    wide = stored.resize((round(300 * 256 / 260), 256), Image.Resampling.BILINEAR)
                    left, top = (wide.width - 224) // 2, 16
                    cropped = np.array(wide.crop((left, top, left + 224, top + 224)))
                assert torch.equal((image * 255).round().to(torch.uint8), torch.from_numpy(cropped).permute(2, 0, 1))


def test_other_orders_and_sizes(root: Path):
    stream = open_stream(f"potpourri:{root}:cross-mix", corruptions=SHIFTS, size=3, batch_size=5)
    assert stream.name == "potpourri:cross-mix"
    assert stream.composition().images == (3,) * 5


def test_numbered_folders_are_classes_by_number(root: Path, tmp_path: Path):
    shutil.copytree(root, tmp_path / "all")
    picture(tmp_path / "all/imagenet-v2/2/a.png", (256, 256), 7)
    stream = open_stream(f"potpourri:{tmp_path / 'all'}", corruptions=["fog"])
    assert stream.composition().names[-1] == "imagenet-v2"
    assert stream.composition().published[-1] == -1
    (batch,) = stream
    assert batch.labels[batch.domains == 4].tolist() == [2]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve numbered classes in every folder: sorted as words, so class 2 is the folder 10."""
    folder = tmp_path_factory.mktemp("numbered")
    for number in range(12):
        picture(folder / "imagenet-c/fog/5" / str(number) / "a.png", (224, 224), number)
        for name in ("imagenet-r", "imagenet-a", "imagenet-sketch", "imagenet"):
            picture(folder / name / str(number) / "a.png", (224, 224), number)
    return folder


def test_folders_named_alike_are_one_class_even_where_all_are_numbers(numbered: Path):
    """The same pixels are in the folders of one name, so all domains label them alike."""
    stream = open_stream(f"potpourri+:{numbered}", corruptions=["fog"], held_out=0)
    assert stream.classes == tuple(sorted(map(str, range(12))))
    labels: dict[bytes, set[int]] = {}
    for batch in stream:
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            labels.setdefault(image.numpy().tobytes(), set()).add(label)
    assert sorted(map(sorted, labels.values())) == [[number] for number in range(12)]
    for number in range(12):
        with Image.open(numbered / f"imagenet-r/{number}/a.png") as stored:
            image = (torch.from_numpy(np.array(stored)).permute(2, 0, 1).float() / 255).contiguous()
        (label,) = labels[image.numpy().tobytes()]
        assert stream.classes[label] == str(number)


def test_numbers_that_numbered_classes_lack_are_refused(numbered: Path, tmp_path: Path):
    shutil.copytree(numbered, tmp_path / "all")
    picture(tmp_path / "all/imagenet-a/03/a.png", (224, 224), 0)
    with pytest.raises(ValueError, match="1 class folders that imagenet-c does not have, such as '03'"):
        open_stream(f"potpourri:{tmp_path / 'all'}", corruptions=["fog"])


def test_the_fingerprint_reads_every_folder(root: Path, tmp_path: Path):
    shutil.copytree(root, tmp_path / "copy")
    before = open_stream(f"potpourri:{root}", corruptions=SHIFTS).fingerprint()
    assert open_stream(f"potpourri:{tmp_path / 'copy'}", corruptions=SHIFTS).fingerprint() == before
    picture(tmp_path / "copy/imagenet-a" / FEW[0] / "0.png", (300, 260), 999)
    assert open_stream(f"potpourri:{tmp_path / 'copy'}", corruptions=SHIFTS).fingerprint() != before


def test_what_is_missing_or_strange_is_told(root: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="lacks imagenet-c, imagenet-r, imagenet-sketch, imagenet-a"):
        open_stream(f"potpourri:{tmp_path}", corruptions=SHIFTS)
    shutil.copytree(root, tmp_path / "all")
    shutil.rmtree(tmp_path / "all/imagenet")
    with pytest.raises(FileNotFoundError, match=r"lacks imagenet; .* of a potpourri\+"):
        open_stream(f"potpourri+:{tmp_path / 'all'}", corruptions=SHIFTS)
    picture(tmp_path / "all/imagenet-r/cat/0.png", (300, 260), 0)
    with pytest.raises(ValueError, match="1 class folders that imagenet-c does not have, such as 'cat'"):
        open_stream(f"potpourri:{tmp_path / 'all'}", corruptions=SHIFTS)
    shutil.rmtree(tmp_path / "all/imagenet-r")
    (tmp_path / "all/imagenet-r/n01440764").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no images in them"):
        open_stream(f"potpourri:{tmp_path / 'all'}", corruptions=SHIFTS)
    with pytest.raises(ValueError, match="holds no 'frost' at severity 5"):
        open_stream(f"potpourri:{root}", corruptions=["frost"])
    with pytest.raises(ValueError, match="takes no setting 'continual'"):
        open_stream(f"potpourri:{root}:continual")
    with pytest.raises(ValueError, match=r"takes no setting 'potpourri\+'"):
        open_stream(f"potpourri:{root}:potpourri+")
    with pytest.raises(ValueError, match=r"needs a folder that holds imagenet-c.*digits:potpourri"):
        open_stream("potpourri")
    with pytest.raises(ValueError, match="has only the split 'test'"):
        open_stream(f"potpourri:{root}", split="train")
    with pytest.raises(ValueError, match="given twice"):
        open_stream(f"potpourri:{root}", data=tmp_path)
