"""Data sets as they lie on disk: split files, class folders, ImageNet's variants, damaged and missing images."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from acclimate.cli.app import parse
from acclimate.fields.vision_language import (
    DATASETS,
    LabelledImages,
    class_folders,
    listed_images,
    open_images,
    read_names,
    split_file,
)
from acclimate.fields.vision_language.published import BACKBONES, COLUMNS, PUBLISHED
from acclimate.fields.vision_language.texts.templates import TEMPLATES

NAMES = "n01440764 tench\nn01443537 goldfish\nn01484850 great_white shark\n"


def paint(path: Path, shade: int = 0, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 255)).save(path)
    return path


def preprocess(picture: Any) -> Tensor:
    return torch.from_numpy(np.array(picture.resize((4, 4)), dtype=np.float32)).permute(2, 0, 1) / 255


def splits(folder: Path, rows: dict[str, list[Any]], name: str = "split_zhou_OxfordPets.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(rows))
    return path


PETS: dict[str, list[Any]] = {
    "train": [["a/1.png", 0, "maine_coon"], ["b/1.png", 2, "beagle"]],
    "val": [["c/1.png", 1, "pug"]],
    "test": [
        ["b/2.png", 2, "beagle"],
        ["a/2.png", 0, "maine_coon"],
        ["c/2.png", 1, "pug"],
        ["a/3.png", 0, "maine_coon"],
    ],
}


def pets(root: Path) -> Path:
    for listed in PETS.values():
        for number, (inside, label, _) in enumerate(listed):
            paint(root / "oxford_pets" / "images" / inside, 60 * label + number)
    splits(root / "oxford_pets", PETS)
    return root


def test_a_split_file_with_its_images(tmp_path: Path):
    images = open_images("pets", pets(tmp_path))
    assert images.classes == ("maine coon", "pug", "beagle") and len(images) == 4
    assert images.labels.tolist() == [2, 0, 1, 0]
    assert [path.name for path in images.paths] == ["2.png", "2.png", "2.png", "3.png"]
    whole = list(images.batches(preprocess, batch_size=3, seed=None))
    assert [batch.images.shape for batch in whole] == [(3, 3, 4, 4), (1, 3, 4, 4)]
    assert [batch.position for batch in whole] == [0, 1] and whole[1].index.tolist() == [3]
    assert whole[0].images[:, 0, 0, 0].mul(255).round().tolist() == [120, 1, 62]
    assert whole[0].images[:, 2].eq(1).all() and whole[0].segment.name == "pets"
    other = open_images("pets", tmp_path, "val")
    assert other.classes == images.classes and other.labels.tolist() == [1]


def test_the_order_follows_from_seed_and_name(tmp_path: Path):
    images = open_images("pets", pets(tmp_path))

    def order(source: LabelledImages, seed: int) -> list[int]:
        return [
            place for batch in source.batches(preprocess, batch_size=2, seed=seed) for place in batch.index.tolist()
        ]

    batches = images.batches(preprocess, batch_size=2, seed=1)
    assert len(batches) == 2 and [b.index.tolist() for b in batches] == [b.index.tolist() for b in batches]
    assert order(images, 1) == order(images, 1) and sorted(order(images, 1)) == [0, 1, 2, 3]
    assert len({tuple(order(images, seed)) for seed in range(4)}) > 1
    renamed = LabelledImages("dogs", images.classes, images.paths, images.labels, images.root)
    assert [order(images, seed) for seed in range(4)] != [order(renamed, seed) for seed in range(4)]
    assert images.fingerprint() == open_images("pets", tmp_path).fingerprint() != renamed.fingerprint()
    assert images.subset(2).labels.tolist() == [2, 1] and len(images.subset(9)) == 4
    paint(images.paths[0], 200, (60, 60))
    assert images.fingerprint() != renamed.fingerprint() and images.fingerprint() != images.subset(2).fingerprint()


@pytest.mark.parametrize("kind", ["missing", "damaged", "cut"])
def test_an_image_that_cannot_be_read(tmp_path: Path, kind: str):
    images = open_images("pets", pets(tmp_path))
    bad = images.paths[1]
    whole = bad.read_bytes()
    bad.unlink() if kind == "missing" else bad.write_bytes(b"no image" if kind == "damaged" else whole[:50])
    with pytest.raises((FileNotFoundError, ValueError), match=r"a/2\.png"):
        list(images.batches(preprocess, seed=None))
    batches = images.batches(preprocess, batch_size=1, seed=None, damaged="skip")
    found = list(batches)
    assert batches.skipped == [bad]
    assert [batch.index.item() for batch in found] == [0, 2, 3] and [batch.position for batch in found] == [0, 1, 2]
    assert [batch.labels.item() for batch in found] == [2, 1, 0]
    bad.write_bytes(whole)
    assert len(list(batches)) == 4 and not batches.skipped


def test_what_preprocess_may_not_do(tmp_path: Path):
    images = open_images("pets", pets(tmp_path))
    cases = {
        r"values from -1 to 1 .* expected \[0, 1\]": lambda picture: 2 * preprocess(picture) - 1,
        r"expected floats \[3, H, W\]": lambda picture: preprocess(picture)[None],
        r"int32 .* expected floats": lambda picture: preprocess(picture).int(),
        "nan": lambda picture: preprocess(picture) * float("nan"),
        r"ndarray of .* expected floats \[3, H, W\] in a tensor": lambda picture: np.zeros((3, 4, 4)),
        r"\[3, 0, 4\] of .* expected": lambda picture: torch.zeros(3, 0, 4),
        "2 sizes": lambda picture: torch.zeros(3, 4, 4 + picture.getpixel((0, 0))[0] // 100),
    }
    for told, odd in cases.items():
        with pytest.raises(ValueError, match=told):
            list(images.batches(odd, seed=None))
    for options in ({"batch_size": 0}, {"damaged": "maybe"}):
        with pytest.raises(ValueError):
            images.batches(preprocess, **options)  # type: ignore[arg-type]


def test_split_files_of_another_form_are_refused(tmp_path: Path):
    cases: list[tuple[dict[str, Any], str]] = [
        ({"train": [["a.png", 0, "cat"]]}, r"no images for 'test', it lists train \(1\)"),
        ({"test": [["a.png", "0", "cat"]]}, "entry 0 of 'test'"),
        ({"test": [["a.png", 0]]}, r"expected \[path, label, class name\]"),
        ({"test": [["a.png", 0, "cat"], ["b.png", 0, "dog"]]}, "label 0 both 'cat' and 'dog'"),
        ({"test": [["a.png", 0, "sea_cat"], ["b.png", 1, "sea cat"]]}, "calls two classes 'sea cat'"),
        ({"test": [["a.png", 1, "cat"]]}, "none of them is 0"),
        ({"test": [["a.png", True, "cat"]]}, "entry 0"),
        ({"test": [["../a.png", 0, "cat"]]}, "inside the folder of images"),
        ({"test": {"a.png": 0}}, "expected a list"),
    ]
    for rows, told in cases:
        with pytest.raises(ValueError, match=told):
            split_file(splits(tmp_path, rows))
    (tmp_path / "split.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON file"):
        split_file(tmp_path / "split.json")
    (tmp_path / "split.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"split\.json is no JSON file"):
        split_file(tmp_path / "split.json")
    (tmp_path / "split.json").write_text("[]")
    with pytest.raises(ValueError, match="holds a list"):
        split_file(tmp_path / "split.json")
    with pytest.raises(FileNotFoundError, match="no split file"):
        split_file(tmp_path / "other.json")


def test_numbered_folders_are_labels_and_not_strings(tmp_path: Path):
    """ImageNet-V2's folders sort as 0, 1, 10, 11, 2, ...: the label is the number, whatever the order."""
    root = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    for label in range(12):
        paint(root / str(label) / "x.png", label)
    names = "\n".join(f"n{9000 - label:08d} class {label}" for label in range(12))
    (tmp_path / "imagenetv2" / "classnames.txt").write_text(names)
    images = open_images("imagenet-v2", tmp_path)
    shades = torch.cat([batch.images[:, 0, 0, 0] for batch in images.batches(preprocess, seed=None)]).mul(255).round()
    assert shades.tolist() == images.labels.tolist() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert images.classes[0] == "class 11", "labels count sorted folders of ImageNet, not lines of the file"
    assert class_folders(root, numbered=True).classes[11] == "11"
    paint(root / "12" / "x.png")
    with pytest.raises(ValueError, match="each number below 12"):
        open_images("imagenet-v2", tmp_path)
    paint(root / "one" / "x.png")
    with pytest.raises(ValueError, match="'one', expected numbers"):
        class_folders(root, numbered=True)


def test_a_subset_of_folders_is_a_problem_of_so_many_classes(tmp_path: Path):
    names = [f"n{number:08d}" for number in range(1000)]
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "classnames.txt").write_text("\n".join(f"{name} thing {name[-3:]}" for name in names))
    for number in range(0, 1000, 5):
        folder = tmp_path / "imagenet-adversarial" / "imagenet-a" / names[number]
        folder.mkdir(parents=True)
        (folder / "1.jpg").touch()
    (tmp_path / "imagenet-adversarial" / "imagenet-a" / "README.txt").touch()
    images = open_images("imagenet-a", tmp_path)
    assert len(images.classes) == DATASETS["imagenet-a"].classes == 200 and len(images) == 200
    assert images.classes[3] == "thing 015" and images.labels.tolist() == list(range(200))
    (tmp_path / "imagenet-adversarial" / "imagenet-a" / "n99999999").mkdir()
    with pytest.raises(ValueError, match="such as 'n99999999'"):
        open_images("imagenet-a", tmp_path)


def test_names_of_classes(tmp_path: Path):
    expected = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}
    (text := tmp_path / "classnames.txt").write_text(NAMES + "\n")
    assert read_names(text) == expected and list(read_names(text)) == sorted(expected)
    (plain := tmp_path / "a.json").write_text(json.dumps({k: expected[k] for k in reversed(expected)}))
    assert list(read_names(plain).items()) == list(expected.items())
    index = {str(number): [folder, name] for number, (folder, name) in enumerate(expected.items())}
    (keras := tmp_path / "b.json").write_text(json.dumps(index))
    assert read_names(keras) == expected
    for name, content, told in [
        ("c.json", "{", "no JSON"), ("d.json", "[1]", "another form"), ("e.json", '{"n1": 3}', "another form"),
        ("f.txt", "n1", "line 1 of"), ("g.txt", "", "names 0 folders"), ("h.txt", "n1 a\nn1 b", "1 of them different"),
        ("i.json", '{"n1": "a", "n1": "b"}', r"i\.json .*'n1' twice"), ("j.json", '{"n1": ""}', "gives 'n1' no name"),
    ]:  # fmt: skip
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=told):
            read_names(tmp_path / name)
    (tmp_path / "k.txt").write_bytes(b"n1 caf\xe9\n")
    with pytest.raises(ValueError, match=r"k\.txt is not text in UTF-8"):
        read_names(tmp_path / "k.txt")
    (tmp_path / "l.txt").write_text(NAMES, encoding="utf-8-sig")
    assert read_names(tmp_path / "l.txt") == expected
    with pytest.raises(FileNotFoundError, match="no class names"):
        read_names(tmp_path / "none.txt")


def test_the_lists_of_aircraft(tmp_path: Path):
    root = tmp_path / "fgvc_aircraft"
    root.mkdir()
    (root / "images").mkdir()
    (root / "variants.txt").write_text("707-320\nA300B4\nDC-10\n")
    (root / "images_variant_test.txt").write_text("0034309 707-320\n1 DC-10\n")
    images = open_images("aircraft", tmp_path)
    assert images.classes == ("707-320", "A300B4", "DC-10") and images.labels.tolist() == [0, 2]
    assert [path.name for path in images.paths] == ["0034309.jpg", "1.jpg"]
    with pytest.raises(FileNotFoundError, match="images_variant_val"):
        listed_images(root, "val")
    (root / "variants.txt").write_text("707-320\nDC-10\nDC-10\n")
    with pytest.raises(ValueError, match="calls two classes 'DC-10'"):
        open_images("aircraft", tmp_path)
    (root / "variants.txt").write_text("707-320\nDC-10\n")
    (root / "images_variant_test.txt").write_text("1 DC-11\n")
    with pytest.raises(ValueError, match="'1 DC-11'"):
        open_images("aircraft", tmp_path)


def test_data_sets_that_are_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no data set 'pet' .* mean 'pets'"):
        open_images("pet", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no Pets in .* 'oxford_pets' or 'pets'"):
        open_images("pets", tmp_path)
    (tmp_path / "pets").mkdir()
    with pytest.raises(FileNotFoundError, match="no split file"):
        open_images("pets", tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        class_folders(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="1 folders and no images"):
        class_folders(tmp_path)
    paint(tmp_path / "imagenet" / "images" / "val" / "n01440764" / "1.png")
    with pytest.raises(FileNotFoundError, match="no class names for ImageNet"):
        open_images("imagenet", tmp_path)
    (tmp_path / "classnames.txt").write_text(NAMES)
    assert open_images("imagenet", tmp_path).classes == ("tench",)
    with pytest.raises(ValueError, match="read for testing"):
        open_images("imagenet", tmp_path, "train")


def test_images_and_labels_that_do_not_fit(tmp_path: Path):
    path = paint(tmp_path / "1.png")
    for labels, told in [
        (torch.tensor([1]), "reach from 1 to 1"), (torch.tensor([-1]), "reach from -1"),
        (torch.tensor([0, 0]), "expected at least one image"), (torch.tensor([0.0]), "float32"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=told):
            LabelledImages("one", ("cat",), (path,), labels, tmp_path)
    assert len(LabelledImages("two", ("crane", "crane"), (path,), torch.tensor([1]), tmp_path)) == 1


def test_the_catalogue_is_that_of_the_tables():
    assert len(DATASETS) == 15 and all(facts.templates in TEMPLATES for facts in DATASETS.values())
    assert sum(facts.size for facts in DATASETS.values()) == 148_389 + 83_696
    settings = {name: (facts.alpha, facts.beta) for name, facts in DATASETS.items()}
    assert settings["imagenet-sketch"] == (2.363, 7.45) and settings["eurosat"] == (4.0, 8.0)
    assert DATASETS["imagenet-v2"].numbered and sum(facts.numbered for facts in DATASETS.values()) == 1


def test_published_rows_add_up():
    """A published mean is the mean of its row, to the digit or two of rounding that other papers differ by too."""
    for group, tables in PUBLISHED.items():
        assert set(tables) == set(BACKBONES)
        for backbone, table in tables.items():
            for name, row in table.items():
                assert len(row) == len(COLUMNS[group]), (backbone, name)
                cells = {key: cell.value for key, cell in zip(COLUMNS[group], row, strict=True) if cell is not None}
                sets = [cells[key] for key in COLUMNS[group] if key in cells and "mean" not in key]
                whole = len(sets) == sum("mean" not in key for key in COLUMNS[group])
                if whole and "mean" in cells:
                    assert cells["mean"] == pytest.approx(sum(sets) / len(sets), abs=0.06), (backbone, name)
                if whole and "OOD mean" in cells:
                    assert cells["OOD mean"] == pytest.approx(sum(sets[1:]) / 4, abs=0.06), (backbone, name)
    cosmic = PUBLISHED["out-of-distribution"]["ViT-B/16"]["COSMIC"]
    assert str(cosmic[0]) == "78.19 ± 0.56"
    assert PUBLISHED["out-of-distribution"]["ViT-B/16"]["BoostAdapter"] == (None,) * 7


def test_what_the_page_says_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parents[3] / "docs" / "vision-language-data.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", page, re.M | re.S))
    exec(compile(source, "vision-language-data.md", "exec"), {"print": lambda *words: said.append(str(words[0]))})
    assert said[0] == "('mallard', 'grey heron', 'mute swan')" and "[]" in said and said[-1] == "ORACLE"
    lines = [line for block in re.findall(r"^```console\n(.*?)^```", page, re.M | re.S) for line in block.splitlines()]
    assert [parse(shlex.split(line)[1:]).paper for line in lines] == ["cosmic", "cosmic"]  # type: ignore[attr-defined]


def test_folders_that_are_no_classes_of_their_own(tmp_path: Path):
    """Two of one name, and a date among numbers."""
    for name in ("mute swan", "mute_swan"):
        paint(tmp_path / "birds" / name / "1.png")
    with pytest.raises(ValueError, match="birds calls two classes 'mute swan'"):
        class_folders(tmp_path / "birds")
    named = class_folders(tmp_path / "birds", {"mute swan": "missile", "mute_swan": "missile"})
    assert named.classes == ("missile", "missile"), "as in ImageNet, where names come from a file"
    paint(tmp_path / "days" / "20240101" / "1.png")
    with pytest.raises(ValueError, match=r"days holds a folder 20240101, expected numbers of classes, below 100,000"):
        class_folders(tmp_path / "days", numbered=True)
