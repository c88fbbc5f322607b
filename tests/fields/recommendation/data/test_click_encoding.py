"""Files encoded block by block: the same as in one piece, resumable, and never mixed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.fields.recommendation.data.clicks import Clicks, joined
from acclimate.fields.recommendation.data.encoding import Encoded, encode_files
from acclimate.fields.recommendation.data.kdd12 import KDD12
from acclimate.fields.recommendation.data.preparing import prepare
from acclimate.fields.recommendation.data.reading import read_files
from acclimate.fields.recommendation.data.splits import parts_at_random
from acclimate.fields.recommendation.data.vocabulary import FieldVocabulary


def kdd_file(path: Path, rows: int = 400, seed: int = 0, rate: float = 0.3) -> Path:
    rng = np.random.default_rng(seed)
    clicks = (rng.random(rows) < rate).astype(int)
    values = rng.integers(0, 20, (rows, 11))
    lines = ("\t".join(map(str, [click, *row])) for click, row in zip(clicks, values, strict=True))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [kdd_file(tmp_path / "one.txt"), kdd_file(tmp_path / "two.txt", 150, seed=1)]


def whole(files: list[Path]) -> tuple[FieldVocabulary, Clicks]:
    vocabulary = FieldVocabulary.fit(read_files(files, KDD12))
    return vocabulary, joined([vocabulary.encode(rows) for rows in read_files(files, KDD12)])


def test_shards_are_the_whole(tmp_path: Path, files: list[Path]) -> None:
    vocabulary, clicks = whole(files)
    told: list[tuple[int, int]] = []
    encoded = encode_files(
        files, KDD12, vocabulary, tmp_path / "out", size=2000, progress=lambda done, of: told.append((done, of))
    )
    assert len(encoded.rows) > 3
    assert len(encoded) == 550
    assert encoded.positives == int(clicks.labels.sum())
    assert encoded.clicks().fingerprint() == clicks.fingerprint()
    assert joined(list(encoded.shards())).fingerprint() == clicks.fingerprint()
    total = sum(file.stat().st_size for file in files)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert Encoded.open(tmp_path / "out") == encoded


def test_a_file_of_one_block_is_one_shard(tmp_path: Path) -> None:
    """With and without a last line feed."""
    path = kdd_file(tmp_path / "one.txt")
    for name in ("with", "without"):
        assert encode_files([path], KDD12, FieldVocabulary.hashing(KDD12.fields, 10), tmp_path / name).rows == (400,)
        path.write_text(path.read_text().rstrip())


def test_it_goes_on_where_it_stopped(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that were written are neither written again nor encoded again; the outcome is the same."""
    vocabulary, clicks = whole(files)

    class Stopped(Exception):
        pass

    calls: list[int] = []
    encode = FieldVocabulary.encode

    def stopping(self: FieldVocabulary, rows):
        calls.append(len(rows))
        if len(calls) == 3:
            raise Stopped
        return encode(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(FieldVocabulary, "encode", stopping)
        with pytest.raises(Stopped):
            encode_files(files, KDD12, vocabulary, tmp_path / "out", size=2000)
        with pytest.raises(FileNotFoundError, match="no finished encoding"):
            Encoded.open(tmp_path / "out")
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")}
        assert len(before) == 2
        encoded = encode_files(files, KDD12, vocabulary, tmp_path / "out", size=2000)
        assert len(calls) == 3 + len(encoded.rows) - 2
        again = encode_files(files, KDD12, vocabulary, tmp_path / "out", size=2000)
        assert len(calls) == 3 + len(encoded.rows) - 2, "what is finished is not touched"
    assert again == encoded
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert encoded.clicks().fingerprint() == clicks.fingerprint()


def test_a_folder_of_another_encoding_is_refused(tmp_path: Path, files: list[Path]) -> None:
    vocabulary, _ = whole(files)
    encode_files(files, KDD12, vocabulary, tmp_path / "out")
    other = FieldVocabulary.hashing(KDD12.fields, 10)
    with pytest.raises(ValueError, match="holds an encoding with another vocabulary; expected the same"):
        encode_files(files, KDD12, other, tmp_path / "out")
    with pytest.raises(ValueError, match="another files"):
        encode_files(files[:1], KDD12, vocabulary, tmp_path / "out")
    with pytest.raises(ValueError, match="another bytes"):
        encode_files(files, KDD12, vocabulary, tmp_path / "out", size=100)


def test_a_file_that_changed_is_another(tmp_path: Path) -> None:
    """Of the same name and size, with other labels."""
    path, vocabulary = kdd_file(tmp_path / "one.txt"), FieldVocabulary.hashing(KDD12.fields, 10)
    encode_files([path], KDD12, vocabulary, tmp_path / "out")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(str(1 - int(line[0])) + line[1:] for line in lines) + "\n")
    with pytest.raises(ValueError, match="another files"):
        encode_files([path], KDD12, vocabulary, tmp_path / "out")


def test_a_shard_that_is_damaged_or_missing_is_encoded_anew(tmp_path: Path, files: list[Path]) -> None:
    vocabulary, clicks = whole(files)
    encode_files(files, KDD12, vocabulary, tmp_path / "out", size=2000)
    first, second, *rest = sorted((tmp_path / "out").glob("*.safetensors"))
    for done in (True, False):
        kept = [path.stat().st_mtime_ns for path in rest]
        first.write_bytes(first.read_bytes()[:-1])
        second.unlink()
        if not done:
            (tmp_path / "out/done.json").unlink()
        again = encode_files(files, KDD12, vocabulary, tmp_path / "out", size=2000)
        assert again.clicks().fingerprint() == clicks.fingerprint()
        assert [path.stat().st_mtime_ns for path in rest] == kept


@pytest.mark.parametrize("name", ["done.json", "plan.json"])
@pytest.mark.parametrize("text", ["{", "[]", "\udcff", '{"rows": []}', '{"rows": ["a"], "positives": 1}'])
def test_what_a_folder_says_of_itself_is_damaged(tmp_path: Path, name: str, text: str) -> None:
    path, vocabulary = kdd_file(tmp_path / "one.txt"), FieldVocabulary.hashing(KDD12.fields, 10)
    encode_files([path], KDD12, vocabulary, tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(text.encode(errors="surrogateescape"))
    told = rf"{name} is damaged" if name == "done.json" or text[0] != "{" or text == "{" else "holds an encoding with"
    with pytest.raises(ValueError, match=told):
        encode_files([path], KDD12, vocabulary, tmp_path / "out")


def test_numbers_of_rows_that_are_not_those_of_the_shards(tmp_path: Path) -> None:
    path, vocabulary = kdd_file(tmp_path / "one.txt"), FieldVocabulary.hashing(KDD12.fields, 10)
    written = encode_files([path], KDD12, vocabulary, tmp_path / "out")
    (tmp_path / "out/done.json").write_text('{"rows": [100], "positives": 50}')
    with pytest.raises(ValueError, match=r"clicks-00000\.safetensors has 400 rows, done\.json says 100"):
        Encoded.open(tmp_path / "out").clicks()
    assert encode_files([path], KDD12, vocabulary, tmp_path / "out") == written == Encoded.open(tmp_path / "out")


def test_a_layout_by_its_name(tmp_path: Path, files: list[Path]) -> None:
    one, other = prepare(files, "kdd12", tmp_path / "one"), prepare(files, KDD12, tmp_path / "other")
    assert one.train.fingerprint() == other.train.fingerprint()
    with pytest.raises(ValueError, match=r"There is no layout 'kdd'\. Did you mean 'kdd12'"):
        prepare(files, "kdd", tmp_path / "new")


def test_a_damaged_shard_is_found(tmp_path: Path, files: list[Path]) -> None:
    encoded = encode_files(files, KDD12, whole(files)[0], tmp_path / "out")
    path = next((tmp_path / "out").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="do not match their checksum"):
        encoded.clicks()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_labels_that_are_all_equal(tmp_path: Path, rate: float) -> None:
    path = kdd_file(tmp_path / "one.txt", rate=rate)
    vocabulary = FieldVocabulary.hashing(KDD12.fields, 10)
    with pytest.raises(ValueError, match=rf"one\.txt: all 400 labels \(column click\) are {int(rate)}; expected both"):
        encode_files([path], KDD12, vocabulary, tmp_path / "out")


@pytest.mark.parametrize("order", ["random", "time"])
def test_a_whole_set_prepared(tmp_path: Path, files: list[Path], order: str) -> None:
    """Parts are those of all rows of all files; ids are by a count of training rows alone, made here by hand."""
    split = prepare(files, KDD12, tmp_path / "out", order=order, seed=7, thresholds=12)
    parts = parts_at_random(550, 7) if order == "random" else np.repeat([0, 1, 2], [440, 55, 55])
    lines = [line.split("\t") for file in files for line in file.read_text().splitlines()]
    assert [len(part) for part in split] == np.bincount(parts).tolist()
    offset = 0
    for field in range(11):
        column = [line[field + 1] for line in lines]
        train = [value for value, part in zip(column, parts, strict=True) if part == 0]
        listed = sorted((v for v in set(train) if train.count(v) >= 12), key=lambda v: (-train.count(v), v.encode()))
        number = {value: place for place, value in enumerate(listed)}
        for part, clicks in enumerate(split):
            expected = [offset + number.get(v, len(listed)) for v, p in zip(column, parts, strict=True) if p == part]
            assert clicks.ids[:, field].tolist() == expected
        offset += len(listed) + 1
    assert offset == split.train.vocabulary
    saved = FieldVocabulary.load(tmp_path / "out/vocabulary.json")
    assert saved.sizes == split.train.sizes
    again = prepare(files, KDD12, tmp_path / "out", order=order, seed=7, thresholds=12)
    assert all(torch.equal(one.ids, other.ids) for one, other in zip(split, again, strict=True))


def test_another_seed_does_not_overwrite_what_is_there(tmp_path: Path, files: list[Path]) -> None:
    prepare(files, KDD12, tmp_path / "out", seed=1)
    kept = (tmp_path / "out/vocabulary.json").read_bytes()
    with pytest.raises(ValueError, match="another vocabulary"):
        prepare(files, KDD12, tmp_path / "out", seed=2)
    assert (tmp_path / "out/vocabulary.json").read_bytes() == kept
    with pytest.raises(ValueError, match="order must be one of 'random', 'time'"):
        prepare(files, KDD12, tmp_path / "new", order="sorted")
