"""The client against a real server, and against servers that misbehave in every way it must bear."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from acclimate.serve.client import Answer, Client, ServerError, Unreachable
from acclimate.serve.settings import Settings

from .live import listening, serving
from .served import TOKEN, images, overlay


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(Settings(method="tent", update="inline", token=TOKEN)) as (address, _):
        yield address


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server, TOKEN) as client:
        yield client


def test_answers_are_those_of_the_published_versions_bit_for_bit(client):
    """Three batches, against an overlay that works through them here."""
    here = overlay(method="tent")
    state = here.first
    for seed in range(3):
        answer = client.predict("same", images(seed))
        stepped = here.step(state, images(seed))
        assert isinstance(answer, Answer)
        assert torch.equal(answer.logits, stepped.answered.logits)
        assert answer.held == stepped.answered.held
        assert (answer.stream, answer.update) == ("same", "done")
        state = stepped.state or state
    before = client.status("same")["version"]
    frozen = client.predict("same", images(9), update=False)
    assert (frozen.version, frozen.update) == (before, "off")
    assert torch.equal(frozen.logits, here.answer(state, images(9)).logits)


def test_encodings_and_arrays_give_one_answer(client):
    x = images(3)
    answers = [
        client.predict("encodings", x, update=False),
        client.predict("encodings", x.numpy(), update=False),
        client.predict("encodings", np.asfortranarray(x.numpy()), update=False),
        client.predict("encodings", x.double(), update=False, encoding="json"),
        client.predict("encodings", x.flip(3).flip(3).requires_grad_(), update=False),
    ]
    for answer in answers[1:]:
        assert torch.equal(answer.logits, answers[0].logits)


def test_every_verb(client):
    for seed in range(4):
        client.predict("verbs", images(seed))
    first = client.snapshots("verbs")[0]["version"]
    last = client.status("verbs")["version"]
    assert client.keep("verbs", "good") == last
    assert [kept["name"] for kept in client.snapshots("verbs") if kept["version"] == last] == ["good"]
    assert client.rollback("verbs", first) == last + 1
    assert client.reset("verbs") == last + 2
    assert client.freeze("verbs") == last + 2
    assert client.predict("verbs", images(0)).update == "frozen"
    client.freeze("verbs", False)
    assert not client.status("verbs")["frozen"]
    assert "verbs" in [line["stream"] for line in client.streams()]
    assert client.info()["method"]["name"] == "tent"
    assert client.ready()
    client.delete("verbs")
    with pytest.raises(ServerError, match="no stream 'verbs'") as caught:
        client.status("verbs")
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("token", "status", "words"), [(None, 401, "no token"), ("another token altogether", 401, "another token")]
)
def test_control_without_the_token_is_told(server, token, status, words):
    with Client(server, token) as client:
        client.predict("locked", images(0))
        with pytest.raises(ServerError, match=words) as caught:
            client.reset("locked")
    assert caught.value.status == status
    assert caught.value.do.startswith("Send it")


def test_a_token_is_taken_as_a_file_has_it(server):
    with Client(server, f"{TOKEN}\n") as client:
        client.predict("newline", images(0))
        assert client.reset("newline") == 2
    for token in ("a token\nof two lines", "schlüssel"):
        with pytest.raises(ValueError, match="no header can"):
            Client(server, token)


def test_errors_say_what_was_found_and_what_to_do(client):
    with pytest.raises(ServerError) as caught:
        client.predict("shapes", torch.rand(2, 5, 8, 8))
    assert caught.value.status == 422
    assert caught.value.expected
    for stream in ("", ".", "..", "a/b", "a?b", "ä", "a" * 65, "a\n"):
        with pytest.raises(ValueError, match="stream id"):
            client.status(stream)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"address": "127.0.0.1:8000"}, "http://"),
        ({"timeout": 0}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"longest_wait": -1}, "longest_wait"),
    ],
)
def test_bad_settings_are_told(wrong, words):
    with pytest.raises(ValueError, match=words):
        Client(**wrong)


def test_threads_share_a_client(client):
    """Each thread's stream gets what it gets alone."""

    def work(number: int) -> list[torch.Tensor]:
        return [client.predict(f"thread-{number}", images(seed + number)).logits for seed in range(3)]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(work, range(3)))
    for number, answers in enumerate(found):
        for place, logits in enumerate(answers):
            alone = client.predict(f"alone-{number}", images(place + number)).logits
            assert torch.equal(logits, alone)


# -- servers that misbehave ------------------------------------------------------------------------------


class Script:
    """A server that answers as it is told, one answer after the other, and notes when it was asked."""

    def __init__(self) -> None:
        self.answers: list[Response | float] = []
        self.times: list[float] = []
        self.app = FastAPI()
        self.app.add_api_route("/{path:path}", self._answer, methods=["GET", "POST"])

    def _answer(self, path: str, request: Request) -> Response:
        self.times.append(time.monotonic())
        answer = self.answers.pop(0)
        if isinstance(answer, float):
            threading.Event().wait(answer)
            return JSONResponse({"streams": []})
        return answer

    def tell(self, *answers: Response | float) -> None:
        self.answers, self.times = list(answers), []


@pytest.fixture(scope="module")
def script() -> Iterator[tuple[Script, str]]:
    script = Script()
    with listening(script.app) as address:
        yield script, address


def full(status: int, after: str | None) -> Response:
    body = {"detail": {"found": "many.", "expected": "few", "do": "Wait."}}
    return JSONResponse(body, status, {} if after is None else {"Retry-After": after})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("acclimate.serve.client.time.sleep", waited.append)
    return waited


def test_a_full_server_is_asked_again_when_it_says(script, waits):
    told, address = script
    told.tell(full(429, "2"), full(503, "99"), full(503, None), full(503, "soon"), JSONResponse({"streams": [{}]}))
    with Client(address, longest_wait=3) as client:
        assert client.streams() == [{}]
    assert waits[:2] == [2, 3], "as told, and at most as long as wished"
    assert all(0 < wait <= 3 for wait in waits[2:])
    assert len(waits) == 4


def test_retries_are_bounded(script, waits):
    told, address = script
    told.tell(*[full(503, "1")] * 9)
    with Client(address, retries=2) as client, pytest.raises(ServerError, match=r"many. Expected few. Wait.") as caught:
        client.predict("any", images(0))
    assert (caught.value.status, caught.value.retry_after) == (503, 1)
    assert len(told.times) == 3
    assert waits == [1, 1]


def test_other_refusals_are_not_repeated(script, waits):
    told, address = script
    told.tell(full(422, "1"), full(504, "1"))
    with Client(address) as client:
        for status in (422, 504):
            with pytest.raises(ServerError) as caught:
                client.predict("any", images(0))
            assert caught.value.status == status
    assert not waits


def test_what_may_have_been_learned_is_not_sent_twice(script, waits):
    """A lost answer: a question is asked again, a batch is not."""
    told, address = script
    with Client(address, timeout=0.2, retries=3) as client:
        told.tell(0.6)
        with pytest.raises(ServerError, match="may have been answered and learned") as caught:
            client.predict("any", images(0))
        assert caught.value.status == 0
        assert len(told.times) == 1
        told.tell(0.6, JSONResponse({"streams": []}))
        assert client.streams() == []
        assert len(told.times) == 2


def test_a_server_that_is_not_there_is_told(waits):
    with Client("http://127.0.0.1:9", retries=2) as client:
        with pytest.raises(Unreachable, match=r"no server at http://127.0.0.1:9.*acclimate serve"):
            client.predict("any", images(0))
        assert len(waits) == 2, "it was never sent, so it is safe to try again"
        assert not client.ready()


@pytest.mark.parametrize(
    "strange",
    [
        Response(b"<html>", 200),
        JSONResponse([], 200),
        Response(b"[" * 100_000, 200),
        Response(b"\x00" * 40, 200, {"Acclimate-Version": "3"}),
        Response(b"\xff\xfe", 200),
    ],
    ids=["page", "list", "deep", "zeros", "no-text"],
)
def test_strange_answers_are_told(script, strange):
    told, address = script
    told.tell(strange, strange, strange)
    with Client(address) as client:
        for ask in (
            lambda: client.status("any"),
            lambda: client.predict("any", images(0)),
            lambda: client.predict("any", images(0), encoding="json"),
        ):
            with pytest.raises(ServerError, match="cannot be read"):
                ask()


def test_a_value_that_lacks_what_is_needed_is_told(script):
    told, address = script
    told.tell(JSONResponse({}), JSONResponse({}))
    with Client(address) as client:
        with pytest.raises(ServerError, match="cannot be read: KeyError 'streams'"):
            client.streams()
        assert not client.ready()


def test_a_page_in_place_of_an_error_is_told(script):
    told, address = script
    told.tell(Response("<html>Bad gateway</html>", 502))
    with Client(address) as client, pytest.raises(ServerError, match=r"HTTP 502 Bad Gateway.*what stands between"):
        client.status("any")


def test_logits_that_are_not_finite_travel(script):
    told, address = script
    facts = {"stream": "s", "version": 1, "held": 0, "held_at_source": False, "update": "off"}
    told.tell(JSONResponse({**facts, "request": "r", "batch": "r", "logits": [[1.0, None]], "labels": [None]}))
    with Client(address) as client:
        logits = client.predict("s", images(0), encoding="json").logits
    assert logits[0, 0] == 1
    assert math.isnan(logits[0, 1])


def test_an_idle_connection_that_the_server_has_closed_is_no_failure():
    """A server that closes after each answer: the next batch goes over a new connection, and only once."""
    asked: list[int] = []
    app = FastAPI()

    @app.get("/v1/streams")
    def streams() -> JSONResponse:
        asked.append(threading.get_ident())
        return JSONResponse({"streams": []}, headers={"Connection": "close"})

    with listening(app) as address, Client(address, retries=0) as client:
        for _ in range(5):
            assert client.streams() == []
    assert len(asked) == 5


def test_the_example_of_the_documents_runs(server, capsys):
    page = (Path(__file__).parents[2] / "docs" / "serve-client.md").read_text("utf-8")
    (source,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert "http://127.0.0.1:8000" in source
    exec(compile(source.replace("http://127.0.0.1:8000", server), "serve-client.md", "exec"), {"TOKEN": TOKEN})
    assert "404 no stream 'line-4'" in capsys.readouterr().out
