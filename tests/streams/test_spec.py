"""The grammar DATASET[:DIR][:SETTING]."""

from pathlib import Path

import pytest

from acclimate.streams import load_dataset, open_stream
from acclimate.streams.opening import StreamSpec, parse_spec


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("digits", ("digits", None, "continual")),
        ("digits:gradual", ("digits", None, "gradual")),
        ("cifar10:gradual-cotta", ("cifar10", None, "gradual-cotta")),
        ("cifar10c:/data/c:continual", ("cifar10c", "/data/c", "continual")),
        ("folder:/data/a:b:clean", ("folder", "/data/a:b", "clean")),
        ("cifar100c:./here", ("cifar100c", "./here", "continual")),
        (r"folder:C:\photos:clean", ("folder", r"C:\photos", "clean")),
        (r"folder:C:\photos", ("folder", r"C:\photos", "continual")),
        (" digits:clean ", ("digits", None, "clean")),
    ],
)
def test_specifications(text: str, parts: tuple[str, str | None, str]):
    assert parse_spec(text) == StreamSpec(*parts)


def test_an_existing_folder_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_spec("folder:photos") == StreamSpec("folder", "photos", "continual")
    assert parse_spec("folder:photos:clean") == StreamSpec("folder", "photos", "clean")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit:clean", "no data set 'digit'.*Did you mean 'digits'.*cifar100c"),
        ("", "no data set ''"),
        ("digits:continul", "'continul' is neither a setting nor an existing folder. Did you mean 'continual'"),
        ("folder:/data/photos:claen", "'claen' is neither.*Did you mean 'clean'.*DATASET"),
        ("digits:x", "There are: continual, gradual, gradual-cotta, clean"),
    ],
)
def test_typos_get_help(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        open_stream(text)


def test_folders_are_needed_taken_once_and_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="needs a folder that holds one folder of images for each class: folder:DIR"):
        open_stream("folder:clean")
    with pytest.raises(ValueError, match="given twice"):
        open_stream(f"cifar10:{tmp_path}:clean", data=tmp_path)
    with pytest.raises(ValueError, match="takes no folder"):
        open_stream("digits:clean", data=tmp_path)
    with pytest.raises(ValueError, match="no split 'val'"):
        load_dataset("digits", "val")
    with pytest.raises(ValueError, match=r"no data set 'cifar'.*Did you mean 'cifar10'"):
        load_dataset("cifar")


def test_plans_are_checked_before_data_is_read():
    with pytest.raises(ValueError, match="no corruption 'fogg'"):
        open_stream("cifar10:/nowhere/at/all:continual", corruptions=["fogg"])


def test_default_batch_sizes():
    assert open_stream("digits:clean").batch_size == 100
    assert len(open_stream("digits:continual")) == 15 * 8
    assert len(open_stream("digits:clean", split="train")) == 10
