"""One damaged file costs one version, never the server; and what a manifest has lost, the log still tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.core.storage import _digest, read_state
from acclimate.serve.service import Service

from .alone import alone, sample
from .chain import learned
from .served import images, overlay

INPUTS = [images(seed) for seed in range(9)]
LAST = Path("streams/s/v000000000003.safetensors")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three versions of a stream, the first two of them named; its log tells of the names."""
    folder = tmp_path_factory.mktemp("written") / "state"
    with alone(folder, persist_every=1) as service:
        for number, x in enumerate(INPUTS[:3]):
            service.predict("s", x).result(20)
            if number < 2:
                service.keep("s", f"after-{number}")
        service.freeze("s", True)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "state")


def _as_of_old(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Its header changed, in the format in which the digest was of the tensors alone."""
    tensors, inner = read_state(path)
    inner |= {"format": 1, "digest": _digest(tensors)}
    change(inner)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"]["acclimate"] = json.dumps(inner)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def test_a_version_of_the_older_format_is_taken_up(folder: Path) -> None:
    _as_of_old(folder / LAST, lambda inner: None)
    with alone(folder) as service:
        assert service.stream("s").current.number == 3 and service.stream("s").note is None
        assert service.stream("s").current.state.digest() == learned(overlay(guard=None), INPUTS[:3])[0].digest()


HEADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no scalars": lambda inner: inner.pop("scalars"),
    "null for scalars": lambda inner: inner.update(scalars=None),
    "a list for scalars": lambda inner: inner.update(scalars=[1, 2]),
    "texts for scalars": lambda inner: inner.update(scalars=dict.fromkeys(inner["scalars"], "x")),
    "lists for scalars": lambda inner: inner.update(scalars={key: [[]] for key in inner["scalars"]}),
    "enormous scalars": lambda inner: inner.update(scalars=dict.fromkeys(inner["scalars"], 10**400)),
    "an infinite format": lambda inner: inner.update(format=float("inf")),
    "a later format": lambda inner: inner.update(format=99),
    "no base": lambda inner: inner.pop("base"),
    "another base": lambda inner: inner.update(base="0" * 64),
    "another version": lambda inner: inner.update(version=2),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_whatever_a_header_holds_the_version_before_is_used(folder: Path, kind: str) -> None:
    _as_of_old(folder / LAST, lambda inner: HEADERS[kind](inner) and None)
    with alone(folder) as service:
        _passed_over(service)
        service.freeze("s", False)
        assert service.predict("s", INPUTS[5]).result(20).version == 2


def _passed_over(service: Service) -> None:
    stream = service.stream("s")
    assert stream.current.number == 2 and "version 3 is damaged" in (stream.note or "")
    assert sample(service, "acclimate_damaged_files_total") == 1


def test_a_bit_in_a_number_of_the_header_is_seen(folder: Path) -> None:
    """The learning rate becomes another one, and the file is as whole as before."""
    raw = bytearray((folder / LAST).read_bytes())
    place = raw.rindex(b'\\"lr\\": 0.001') + len(b'\\"lr\\": ')
    raw[place] ^= 8
    (folder / LAST).write_bytes(raw)
    with alone(folder) as service:
        _passed_over(service)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_any_byte_of_a_file_that_is_another_is_seen(written: Path, data: st.DataObject) -> None:
    """In the header or behind it: what is read is what was written, or nothing."""
    raw = bytearray((written / LAST).read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path = written.parent / "changed.safetensors"
    path.write_bytes(raw)
    tensors, header = read_state(written / LAST)
    try:
        found, told = read_state(path)
    except ValueError:
        return
    assert told == header and found.keys() == tensors.keys()
    assert all(found[name].equal(tensors[name]) for name in tensors)


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an infinite number": lambda manifest: manifest.update(next=float("inf")),
    "a number of too many digits": lambda manifest: manifest.update(next=10**13),
    "a negative number": lambda manifest: manifest.update(next=-5),
    "a later format": lambda manifest: manifest.update(format=99),
    "a text for frozen": lambda manifest: manifest.update(frozen="no"),
    "fractions of versions": lambda manifest: manifest.update(names={"a": 1.5}),
    "a list of names": lambda manifest: manifest.update(names=[]),
    "nothing": lambda manifest: manifest.clear(),
}


@pytest.mark.parametrize("kind", [*MANIFESTS, "torn", "a folder"])
def test_a_damaged_manifest_costs_no_version(folder: Path, kind: str) -> None:
    """Names come from the log, so that what is kept under them outlives the unfreezing that the note asks for."""
    path = folder / "streams/s/manifest.json"
    if kind in MANIFESTS:
        told = json.loads(path.read_text())
        MANIFESTS[kind](told)
        path.write_text(json.dumps(told))
    elif kind == "torn":
        path.write_text('{"names": 3')
    else:
        path.unlink()
        path.mkdir()
    with alone(folder) as service:
        stream = service.stream("s")
        assert stream.frozen and "manifest is damaged" in (stream.note or "") and stream.current.number == 3
        assert stream.names == {"after-0": 1, "after-1": 2} and stream.next == 4
        if kind == "a folder":
            return  # which nothing can be written over
        service.freeze("s", False)
        for x in INPUTS:
            service.predict("s", x).result(20)
        service.freeze("s", False)
    with alone(folder) as service:
        assert service.stream("s").note is None
        assert [service.rollback("s", number).number for number in (1, 2)] == [13, 14]


def test_what_had_a_name_that_is_lost_gets_another(tmp_path: Path) -> None:
    """Where the log cannot tell it either: more versions are there than are kept without a name."""
    with alone(tmp_path) as service:
        for x in INPUTS[:7]:
            service.predict("s", x).result(20)
            service.keep("s", f"n{service.stream('s').current.number}")
    folder = tmp_path / "streams" / "s"
    (folder / "manifest.json").write_text("{")
    (folder / "audit.jsonl").unlink()
    before = {path.name for path in folder.glob("v*")}
    with alone(tmp_path) as service:
        assert service.stream("s").names == {f"recovered-{number}": number for number in (1, 2, 3)}
        service.freeze("s", False)
    assert {path.name for path in folder.glob("v*")} == before and len(before) == 7


def test_without_its_manifest_a_frozen_stream_stays_frozen(folder: Path) -> None:
    (folder / "streams/s/manifest.json").unlink()
    with alone(folder) as service:
        stream = service.stream("s")
        assert stream.frozen and stream.names == {"after-0": 1, "after-1": 2}
        assert "manifest is missing" in (stream.note or "") and sample(service, "acclimate_damaged_files_total") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is damaged"),
        ('{"format": 1, "ide', "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 99, "identity": {}}', "has format 99.*Update acclimate"),
    ],
)
def test_whose_a_folder_is_must_be_told(folder: Path, text: str, words: str) -> None:
    (folder / "server.json").write_text(text)
    with pytest.raises(ValueError, match=rf"server.json.*{words}"), alone(folder):
        pass


def test_an_enormous_number_in_the_log_is_no_number(folder: Path) -> None:
    with (folder / "streams/s/audit.jsonl").open("a") as log:
        log.write('{"event": "update", "state": "x", "after": 99999999999999999}\n')
    with alone(folder) as service:
        assert service.stream("s").next == 4
