"""Bodies that nobody should send: each is a refusal with a reason, never a failure."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from acclimate.serve.answers import Answer, as_json, as_safetensors
from acclimate.serve.bodies import Reader, content_hash
from acclimate.serve.refused import Refused
from acclimate.serve.settings import Limits

from .served import images

READER = Reader(Limits(rows=16, pixels=400, body_bytes=100_000), indices=False, dtype=torch.float32)
WORDS = Reader(Limits(), indices=True, dtype=torch.float32)
GOOD = safetensors.torch.save({"inputs": images(0)})


def _picture(size: tuple[int, int] = (8, 6), kind: str = "PNG", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 90).convert(mode).save(out, kind)
    return out.getvalue()


def _images(*raw: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(each).decode() for each in raw]}).encode()


def test_the_same_batch_is_the_same_whatever_body_it_comes_in() -> None:
    x = images(0)
    by_lists = READER.json(json.dumps({"inputs": x.tolist()}).encode())
    by_tensor = READER.safetensors(GOOD)
    assert torch.equal(by_lists, x) and torch.equal(by_tensor, x)
    assert content_hash(by_lists) == content_hash(by_tensor) != content_hash(images(1))
    assert content_hash(x) != content_hash(x.reshape(4, 3, 4, 16))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_images_become_channels_of_zero_to_one(mode: str) -> None:
    raw = _picture(mode=mode)
    x = READER.json(_images(raw, raw))
    assert x.shape == (2, 3, 6, 8) and x.dtype == torch.float32
    row, column = 5, 2
    pixel = Image.open(io.BytesIO(raw)).convert("RGB").getpixel((column, row))
    assert x[0, :, row, column].tolist() == torch.tensor([value / 255 for value in pixel]).tolist()
    assert READER.json(_images(_picture(kind="JPEG"))).shape == (1, 3, 6, 8)


def test_whole_numbers_are_for_models_that_take_them() -> None:
    assert WORDS.json(b'{"inputs": [[1, 2], [3, 4]]}').dtype == torch.int64
    assert READER.json(b'{"inputs": [[1, 2], [3, 4]]}').dtype == torch.float32
    assert WORDS.json(b'{"inputs": [[1, 2.5], [3, 4]]}').dtype == torch.float32


BAD = {
    b"": 422,
    b"[]": 422,
    b"null": 422,
    b"[" * 100_000: 422,
    b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}": 422,
    b'{"inputs": []}': 422,
    b'{"inputs": [[]]}': 422,
    b'{"inputs": [1, 2]}': 422,
    b'{"inputs": [[1], [2, 3]]}': 422,
    b'{"inputs": [["a"]]}': 422,
    b'{"inputs": ["a"]}': 422,
    b'{"inputs": [[1], 2]}': 422,
    b'{"inputs": [[[1]], [[[2]]]]}': 422,
    b'{"inputs": [[1e999, 1' + b"0" * 400 + b"]]}": 422,
    b'{"inputs": [[true]]}': 422,
    b'{"inputs": [[null]]}': 422,
    b'{"inputs": [[' + b"9" * 5000 + b"]]}": 422,
    b'{"inputs": {"a": 1}}': 422,
    b'{"inputs": [[1]], "images": []}': 422,
    b'{"images": []}': 422,
    b'{"images": [3]}': 422,
    b'{"images": ["%%%"]}': 422,
    b'{"inputs": ' + json.dumps([[0.0]] * 17).encode() + b"}": 413,
    b'{"inputs": ' + json.dumps([[0.0] * 30_000]).encode() + b"}": 413,
    _images(b"no image"): 422,
    _images(_picture()[:40]): 422,
    _images(_picture(), _picture((7, 7))): 422,
    _images(_picture((30, 30))): 422,
    _images(_picture(kind="GIF")): 422,
    _images(*[_picture((1, 1))] * 17): 413,
}


@pytest.mark.parametrize("body", BAD, ids=[body[:24] for body in BAD])
def test_bad_json_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        READER.json(body)
    assert caught.value.status == BAD[body] and caught.value.found and caught.value.expected and caught.value.do


def _peak(body: bytes, limits: Limits) -> tuple[int, int]:
    """The status of a refusal, and the bytes of memory that it took."""
    reader = Reader(limits, indices=False, dtype=torch.float32)
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as caught:
            reader.json(body)
        return caught.value.status, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rows", [500, 5000])
def test_a_text_among_numbers_costs_no_more_than_itself(rows: int) -> None:
    """NumPy would make all of them as long as the longest: 500 rows and this one would take 200 MB."""
    body = b'{"inputs":[' + b"[1]," * rows + b'["' + b"x" * 100_000 + b'"]]}'
    status, peak = _peak(body, Limits())
    assert status == (422 if rows == 500 else 413) and peak < 3e6


def test_images_are_refused_by_their_headers_before_any_is_decoded() -> None:
    """Eight of 6 KB each that would decode to 3 MB each, 12 MB as floating point."""
    out = io.BytesIO()
    Image.new("RGB", (1024, 1024)).save(out, "PNG")
    status, peak = _peak(_images(*[out.getvalue()] * 8), Limits(body_bytes=90_000_000))
    assert status == 413 and peak < 2e6


def _tensors(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _entry(kind: str = "F32", shape: str = "[1,2]", offsets: str = "[0,8]", name: str = "inputs") -> bytes:
    return f'"{name}":{{"dtype":"{kind}","shape":{shape},"data_offsets":{offsets}}}'.encode()


ATTACKS = {
    "truncated": GOOD[:-3],
    "longer": GOOD + b"xx",
    "nothing": b"",
    "a header of an exabyte": (1 << 60).to_bytes(8, "little") + b"{}",
    "overlapping": _tensors(b"{" + _entry() + b"," + _entry(name="other") + b"}", bytes(8)),
    "a hole": _tensors(b"{" + _entry(offsets="[4,12]") + b"}", bytes(12)),
    "backwards": _tensors(b"{" + _entry(offsets="[8,0]") + b"}", bytes(8)),
    "a name twice": _tensors(b"{" + _entry() + b"," + _entry() + b"}", bytes(8)),
    "a shape that overflows": _tensors(b"{" + _entry(shape="[4611686018427387904,4]") + b"}", bytes(8)),
    "more values than bytes": _tensors(b"{" + _entry(shape="[1000,1000]") + b"}", bytes(8)),
    "an unknown type": _tensors(b"{" + _entry(kind="F31") + b"}", bytes(8)),
    "no rows": safetensors.torch.save({"inputs": torch.zeros(0, 3, 8, 8)}),
    "no values": safetensors.torch.save({"inputs": torch.zeros(3, 0)}),
    "one axis": safetensors.torch.save({"inputs": torch.zeros(3)}),
    "a number": safetensors.torch.save({"inputs": torch.zeros(())}),
    "whole numbers": safetensors.torch.save({"inputs": torch.zeros(2, 3, dtype=torch.int64)}),
    "flags": safetensors.torch.save({"inputs": torch.zeros(2, 3, dtype=torch.bool)}),
    "complex numbers": safetensors.torch.save({"inputs": torch.zeros(2, 3, dtype=torch.complex64)}),
    "another name": safetensors.torch.save({"x": torch.zeros(2, 3)}),
    "two tensors": safetensors.torch.save({"inputs": torch.zeros(2, 3), "more": torch.zeros(2, 3)}),
    "a pickle": b"\x80\x05cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_bad_tensors_are_refused(kind: str) -> None:
    with pytest.raises(Refused) as caught:
        READER.safetensors(ATTACKS[kind])
    assert caught.value.status == 422


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=6), st.booleans())
def test_whatever_bytes_stand_where_a_body_is_read_or_refused(place: int, bytes_: bytes, cut: bool) -> None:
    raw = bytearray(GOOD)
    raw[place : place + len(bytes_)] = bytes_
    for read, body in ((READER.safetensors, bytes(raw[:place] if cut else raw)), (READER.json, bytes_)):
        try:
            assert len(read(body)) <= 16
        except Refused as refused:
            assert refused.status in (413, 422)


def test_answers_that_are_not_finite_are_null_in_json_and_exact_in_tensors() -> None:
    logits = torch.tensor([[1.0, 2.0], [torch.nan, 1.0], [torch.inf, 0.0]])
    answer = Answer("s", 3, logits, 2, False, "queued", "r-1", "r-1")
    told = json.loads(as_json(answer))
    assert told["logits"] == [[1.0, 2.0], [None, 1.0], [None, 0.0]] and told["labels"] == [1, None, None]
    assert told["version"] == 3 and told["held"] == 2
    exact = safetensors.torch.load(as_safetensors(answer))["logits"]
    assert torch.equal(exact.view(torch.int32), logits.view(torch.int32))


def test_labels_of_dense_answers_are_of_each_place() -> None:
    logits = torch.rand(2, 3, 4, 5)
    told = json.loads(as_json(Answer("s", 0, logits, 0, False, "off", "r", "r")))
    assert torch.equal(torch.tensor(told["labels"]), logits.argmax(1))
