"""The public sets: those at hand as they are published, and small ones in their layouts."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from acclimate.fields.recommendation.data.sets import SETS, load_set
from acclimate.fields.recommendation.data.splits import Split

PUBLISHED = {
    "adult": ((29_304, 3_257, 16_281), 14, 0.239),
    "frappe": ((57_722, 14_430, 14_430), 10, 0.330),
    "criteo": ((7_200, 409, 391), 39, 0.216),
    "avazu": ((8_087, 480, 432), 21, 0.174),
}


@pytest.fixture
def real(shared: Path) -> Path:
    folder = shared / "data/ctr"
    if not folder.is_dir():
        pytest.skip(f"no click logs in {folder}")
    return folder


@pytest.mark.real_data
@pytest.mark.parametrize("name", SETS)
def test_rows_fields_and_rates_are_the_published_ones(real: Path, name: str) -> None:
    split = load_set(name)
    rows, fields, rate = PUBLISHED[name]
    assert tuple(len(part) for part in split) == rows
    assert len(split.train.fields) == fields
    labels = torch.cat([part.labels for part in split])
    assert float(labels.mean()) == pytest.approx(rate, abs=0.001)
    assert split.train.sizes == split.validation.sizes == split.test.sizes
    for place, (start, end) in enumerate(pairwise((*split.train.offsets, split.train.vocabulary))):
        column = split.train.ids[:, place]
        counts = torch.bincount(column - start, minlength=end - start)
        assert (counts[:-1].diff() <= 0).all(), "ids descend in frequency, the last apart"
        assert (counts[:-1] > 0).all(), "no id but the last is without a training row"


@pytest.mark.real_data
def test_ids_of_criteo_are_those_of_a_plain_count(real: Path) -> None:
    """Read again by Python's own means: C1 at its threshold of 10, I1 at 1."""
    split = load_set("criteo")
    with gzip.open(real / "criteo.train.tsv.gz", "rt") as train, gzip.open(real / "criteo.test.tsv.gz", "rt") as test:
        trained, tested = ([line.rstrip("\n").split("\t") for line in file] for file in (train, test))
    for column, field, threshold in ((14, "C1", 10), (20, "C7", 10)):
        counts = Counter(row[column] for row in trained)
        listed = sorted((v for v in counts if counts[v] >= threshold), key=lambda v: (-counts[v], v))
        place = split.train.fields.index(field)
        assert split.train.sizes[place] == len(listed) + 1
        number = {value: i for i, value in enumerate(listed)}
        expected = [number.get(row[column], len(listed)) + split.train.offsets[place] for row in tested]
        assert split.test.ids[:, place].tolist() == expected
    assert split.test.labels.tolist() == [float(row[0]) for row in tested]


@pytest.mark.real_data
def test_the_seed_cuts_adult_and_frappe(real: Path) -> None:
    for name in ("adult", "frappe"):
        one, same, other = (load_set(name, real, seed=seed) for seed in (1, 1, 2))
        assert one.validation.fingerprint() == same.validation.fingerprint()
        assert one.validation.fingerprint() != other.validation.fingerprint()


@pytest.mark.real_data
def test_adult_can_be_learned(real: Path) -> None:
    """Logistic regression on one-hot ids: about .91; a field or label out of place costs more."""
    split = load_set("adult")
    encoder = OneHotEncoder(handle_unknown="ignore").fit(split.train.ids.numpy())
    model = LogisticRegression(max_iter=300).fit(encoder.transform(split.train.ids.numpy()), split.train.labels.numpy())
    scores = model.decision_function(encoder.transform(split.test.ids.numpy()))
    assert roc_auc_score(split.test.labels.numpy(), scores) > 0.905


@pytest.mark.real_data
def test_thresholds_hashes_and_parity(real: Path) -> None:
    fine, coarse = load_set("avazu", threshold=1), load_set("avazu", threshold=50)
    assert fine.train.vocabulary > load_set("avazu").train.vocabulary > coarse.train.vocabulary
    assert load_set("avazu", fit_on="all").train.vocabulary > load_set("avazu").train.vocabulary
    assert len(load_set("avazu", drop_constant=False).train.fields) == 24
    assert set(load_set("avazu", hashed=100).train.sizes) == {101}


def small_adult(folder: Path, rows: int = 200, test_country: str = "Cuba") -> None:
    """Both files; the label is whether the age is above 50."""
    rng = np.random.default_rng(0)
    for name, dot, country in (("adult.train.csv", "", "Cuba"), ("adult.test.csv", ".", test_country)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file)
            for age in rng.integers(18, 90, rows):
                label = (">50K" if age > 50 else "<=50K") + dot
                cells = [age, "Private", int(rng.integers(10**6)), "HS-grad", 9, "Single", "?", "Wife", "White", "Male"]
                writer.writerow([*cells, 0, 0, 40, country, label])


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    small_adult(tmp_path)
    split = load_set("adult", tmp_path)
    assert [len(part) for part in split] == [180, 20, 200]
    assert split.train.fields == ("age", "fnlwgt"), "all else is constant"
    assert isinstance(split, Split)


def test_test_rows_move_nothing(tmp_path: Path) -> None:
    """A country that only the test file has: unknown to the vocabulary, and the training rows are the same."""
    for name, country in (("one", "Cuba"), ("two", "Peru")):
        (tmp_path / name).mkdir()
        small_adult(tmp_path / name, test_country=country)
    one, two = (load_set("adult", tmp_path / name, drop_constant=False) for name in ("one", "two"))
    assert one.train.fingerprint() == two.train.fingerprint()
    country = one.train.fields.index("native_country")
    last = one.train.offsets[country] + one.train.sizes[country] - 1
    assert (two.test.ids[:, country] == last).all()
    assert (one.test.ids[:, country] == last - 1).all()
    seen = load_set("adult", tmp_path / "two", drop_constant=False, fit_on="all")
    assert seen.train.sizes[country] == 3


def test_bad_calls(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no set 'adlut'\. Did you mean 'adult'"):
        load_set("adlut")
    with pytest.raises(FileNotFoundError, match=r"no adult\.train\.csv or adult\.train\.csv\.gz in .*ACCLIMATE_SHARED"):
        load_set("adult", tmp_path)
    with pytest.raises(ValueError, match="seed must be"):
        load_set("adult", tmp_path, seed=-1)
    small_adult(tmp_path)
    with pytest.raises(ValueError, match="fit_on must be one of"):
        load_set("adult", tmp_path, fit_on="test")
    text = (tmp_path / "adult.test.csv").read_text().replace(">50K", "<=50K")
    (tmp_path / "adult.test.csv").write_text(text)
    with pytest.raises(ValueError, match="test part has 200 rows that are all labelled 0"):
        load_set("adult", tmp_path)
