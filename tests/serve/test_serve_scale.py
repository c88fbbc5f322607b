"""Several workers are one server: each stream meets one of them, and what it has learned is in the folder."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
import safetensors.torch
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from acclimate.core.guard import build_guard
from acclimate.core.method import methods
from acclimate.serve.bounded import BodyLimit, Bounded
from acclimate.serve.front import Front, serve_processes
from acclimate.serve.refused import Refused
from acclimate.serve.service import Service
from acclimate.serve.settings import Limits, Settings
from acclimate.serve.slots import SLOTS, slot, slots_of, worker_of
from acclimate.serve.worker import settings_of, words_of

from .chain import learned, manifest, same, states
from .served import CONTENT, Server, images, network, overlay
from .sharded import SOURCE, sharded, workers

INPUTS = [images(seed) for seed in range(8)]
STREAMS = ("line-2", "line-4", "line-5", "line-7")
HOMES = {2: (1, 1, 0, 0), 3: (0, 1, 1, 2)}
"""Their workers. By sha256sum, the ids' hashes end in 73, 87, 96 and 72."""


def _by_worker(server: Server, name: str, **labels: str) -> dict[str, float]:
    """Values of a metric, by worker."""
    family = next(each for each in text_string_to_metric_families(server.metrics()) if each.name == name)
    found = [each for each in family.samples if labels.items() <= each.labels.items()]
    return {each.labels["worker"]: each.value for each in found}


def _names_are_as_agreed(text: str) -> None:
    """Those of a single server, each with the worker, and the front's own: names are an interface."""
    golden = Path(__file__).with_name("metrics.txt").read_text().splitlines()
    expected = {line.split()[0]: {"worker", *line.split()[2].replace("-", "").split(",")} - {""} for line in golden}
    expected |= {"acclimate_front_requests": {"endpoint", "code"}}
    expected |= {"acclimate_worker_ready": {"worker"}, "acclimate_worker_starts": {"worker"}}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("acclimate"):
            name = family.name.removesuffix("_info")
            wanted = expected.pop(name)
            for sample in family.samples:
                found = sample.labels.keys() - {"le"}
                assert found == wanted or name == "acclimate", (name, found)
    assert not expected


def test_slots_are_shared_evenly_and_each_has_one_worker():
    for number in (1, 2, 3, 7, 64):
        shares = [set(slots_of(worker, number)) for worker in range(number)]
        assert sorted(each for share in shares for each in share) == list(range(SLOTS))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert all(slot(stream) in shares[worker_of(stream, number)] for stream in STREAMS)
    for number, homes in HOMES.items():  # another outcome would leave what is kept to another worker
        assert tuple(worker_of(stream, number) for stream in STREAMS) == homes
    for worker, number in ((2, 2), (-1, 2), (0, 65)):
        with pytest.raises(ValueError, match="expected one of"):
            slots_of(worker, number)


def test_two_workers_never_have_one_stream(tmp_path: Path) -> None:
    def worker(*share: int) -> Service:
        settings = Settings(guard=None, update="inline", state_dir=tmp_path, share=share or (0, 1))  # pyright: ignore
        service = Service(settings, network())
        service.open()
        return service

    first, second = worker(0, 2), worker(1, 2)
    try:
        for share in ((0, 2), (1, 2), (), (0, 3)):  # a slot of each is another's
            with pytest.raises(ValueError, match="belongs to a server that runs"):
                worker(*share)
        for stream, home in zip(STREAMS, HOMES[2], strict=True):
            right, wrong = (first, second) if home == 0 else (second, first)
            assert right.predict(stream, INPUTS[0]).result(20).version == 0
            with pytest.raises(Refused, match="belongs to another worker") as refused:
                wrong.predict(stream, INPUTS[0])
            assert refused.value.status == 421 and stream not in {each.name for each in wrong.streams()}
    finally:
        first.close()
        second.close()
    alone = worker()
    assert [stream.name for stream in alone.streams()] == list(STREAMS)
    alone.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two servers, one after the other."""
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def chain() -> list[Tensor]:
    """What one stream answers to all inputs, computed by itself."""
    return learned(overlay(guard=None), INPUTS)[1]


def _ask(server: Server, stream: str, chain: list[Tensor], numbers: range) -> None:
    for number in numbers:
        logits, headers = server.predict(stream, INPUTS[number])
        assert same(logits, chain[number]) and headers["acclimate-version"] == str(number)


def test_two_workers_answer_as_one_server(folder: Path, chain: list[Tensor]) -> None:
    with sharded(folder, 2) as server:
        for stream in STREAMS:
            _ask(server, stream, chain, range(2))
        assert [line["stream"] for line in server.get("/v1/streams")["streams"]] == list(STREAMS)
        assert _by_worker(server, "acclimate_streams", state="adapting") == {"0": 2, "1": 2}
        assert _by_worker(server, "acclimate_batches") == {"0": 4, "1": 4}
        _names_are_as_agreed(server.metrics())
        refused = server.client.post("/v1/streams/line-2/reset")
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert server.control("line-2", "snapshots", {"name": "kept"})["version"] == 2
        assert server.client.get("/v1/streams/nobody").status_code == 404
        assert server.client.get("/v1/info").json()["model"] == "Sequential"
        assert "<html" in server.client.get("/").text
        upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
        assert b" 200 " in server.raw(
            "GET", "/v1/streams", {**upgrade, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
        )
        assert 'acclimate_front_requests_total{code="200",endpoint="predict"} 8.0' in server.metrics()
        _a_killed_worker_comes_back(server, folder, chain)
        _sigterm_finishes_what_was_begun(server, chain)
    for stream in STREAMS:
        assert manifest(folder / "state/streams" / stream)["current"] == (5 if stream == "line-7" else 4)


def _a_killed_worker_comes_back(server: Server, folder: Path, chain: list[Tensor]) -> None:
    for stream in STREAMS:
        while manifest(folder / "state/streams" / stream)["current"] != 2:
            time.sleep(0.01)
    before = workers(server)
    os.kill(before[1], signal.SIGKILL)
    while (refused := server.post("line-2", INPUTS[2])).status_code == 502:
        pass  # on its way when the worker ended
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
    while server.client.get("/readyz").status_code == 200:
        pass  # the front learns of the end a moment after the connection broke; a worker takes seconds to start
    assert server.client.get("/v1/streams").status_code == 503
    _ask(server, "line-5", chain, range(2, 4))  # the others' worker, meanwhile
    _ask(server, "line-7", chain, range(2, 4))
    assert server.client.get("/readyz").status_code == 503, "so soon no worker can have come back"
    while server.client.get("/readyz").status_code != 200:
        time.sleep(0.02)
    _ask(server, "line-2", chain, range(2, 4))
    _ask(server, "line-4", chain, range(2, 4))
    after = workers(server)
    assert after[0] == before[0] and after[1] != before[1]
    assert _by_worker(server, "acclimate_worker_starts") == {"0": 1, "1": 2}


def _sigterm_finishes_what_was_begun(server: Server, chain: list[Tensor]) -> None:
    body = safetensors.torch.save({"inputs": INPUTS[4]})
    told, go = threading.Event(), threading.Event()

    def slowly():
        yield body[:100]
        told.set()
        go.wait(20)
        yield body[100:]

    found = list[httpx.Response]()
    with httpx.Client(base_url=server.url, timeout=60) as other:
        path = "/v1/streams/line-7/predict"
        thread = threading.Thread(target=lambda: found.append(other.post(path, content=slowly(), headers=CONTENT)))
        thread.start()
        assert told.wait(20)
        time.sleep(0.2)
        server.process.signal(signal.SIGTERM)
        while (ready := server.client.get("/readyz")).status_code == 200:
            time.sleep(0.005)
        assert "about to end" in ready.json()["reason"]
        refused = server.post("line-5", INPUTS[4])
        assert refused.status_code == 503 and "retry-after" in refused.headers
        go.set()
        thread.join()
    assert same(safetensors.torch.load(found[0].content)["logits"], chain[4])
    assert server.process.wait() == 0


def _socket(number: int) -> Path:
    """What a worker listens at."""
    return Path(Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[-2].decode())


def test_other_workers_go_on_from_the_folder(folder: Path, chain: list[Tensor]) -> None:
    """Three in place of two; and none of them outlives a front that is killed."""
    with sharded(folder, 3) as server:
        for stream in STREAMS:
            _ask(server, stream, chain, range(5 if stream == "line-7" else 4, 7))
        assert _by_worker(server, "acclimate_streams", state="adapting") == {"0": 1, "1": 2, "2": 1}
        assert server.control("line-2", "rollback", {"version": 2})["version"] == 8, "kept by the worker it had before"
        left = workers(server)
        (sockets,) = {_socket(number).parent for number in left.values()}
        server.kill()
        while any(Path(f"/proc/{number}/stat").exists() for number in left.values()):
            time.sleep(0.01)
        assert not sockets.exists(), "nobody else knows of it"
    for stream in STREAMS:
        there = folder / "state/streams" / stream
        assert manifest(there)["current"] == (8 if stream == "line-2" else 7)
        states(there, INPUTS)


def test_the_front_has_bounds_of_its_own() -> None:
    """Too many requests at once, too large ones and too slow ones never reach the application behind it."""

    async def ask(body: Any, *, during: Callable[[Bounded], None] = lambda bounded: None) -> httpx.Response:
        async def behind(scope: Any, receive: Any, send: Any) -> None:
            request = Request(scope, receive)
            await Response(await request.body())(scope, receive, send)

        limits = Limits(queue=2, body_bytes=100, deadline=0.2)
        bounded = Bounded(behind, limits)
        during(bounded)
        transport = httpx.ASGITransport(app=BodyLimit(bounded, limits))
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            return await client.post("/v1/streams/s/predict", content=body)

    async def chunks(number: int, pause: float = 0.0):
        for _ in range(number):
            await asyncio.sleep(pause)
            yield b"x" * 60

    def asked(bounded: Bounded) -> None:
        bounded.asked = 2

    fine = asyncio.run(ask(chunks(1)))
    assert (fine.status_code, fine.content) == (200, b"x" * 60)
    full = asyncio.run(ask(b"x", during=asked))
    assert full.status_code == 503 and full.headers["retry-after"] == "1"
    for large in (b"x" * 101, chunks(2)):
        assert asyncio.run(ask(large)).status_code == 413
    slow = asyncio.run(ask(chunks(1, 0.4)))
    assert slow.status_code == 504 and slow.headers["retry-after"] == "1"


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    """One whose two workers, which nobody has started, are ready."""
    monkeypatch.setattr("acclimate.serve.front.tempfile.mkdtemp", lambda prefix: str(tmp_path))
    front = Front(Settings(state_dir=tmp_path, source=(SOURCE, None)), 2)
    for worker in front._workers:
        worker.ready = True
    return front


def _asked(front: Front, verb: str, path: str, **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=front), base_url="http://front") as client:
            return await client.request(verb, path, **request)

    return asyncio.run(ask())


UNSENT, SENT = (
    (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout),
    (httpcore.ReadTimeout, httpcore.WriteTimeout, httpcore.ReadError, httpcore.RemoteProtocolError),
)


@pytest.mark.parametrize("error", [*UNSENT, *SENT])
def test_what_may_have_been_learned_is_said_to_be(
    front: Front, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """A worker that hangs may go on, and learn what it was sent."""

    async def fail(*_: Any) -> None:
        raise error

    for worker in front._workers:
        monkeypatch.setattr(worker, "ask", fail)
    told = _asked(front, "POST", "/v1/streams/s/predict", content=b"x")
    assert told.status_code == (503 if error in UNSENT else 502)
    assert ("retry-after" in told.headers) == (error in UNSENT)
    assert ("may have been learned" in told.json()["detail"]["do"]) == (error in SENT)
    looked = _asked(front, "GET", "/v1/streams/s")
    assert looked.status_code == 503 and "retry-after" in looked.headers


def test_the_front_refuses_as_a_server_does_and_counts_by_what_answers(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*_: Any) -> httpcore.Response:
        answer = httpcore.Response(200, content=b"{}")
        await answer.aread()
        return answer

    for worker in front._workers:
        monkeypatch.setattr(worker, "ask", answer)

    async def chunks():
        for _ in range(3):
            yield b" " * 30_000

    for body in (b" " * 70_000, chunks()):
        large = _asked(front, "POST", "/v1/streams/s/rollback", content=body)
        assert large.status_code == 413 and set(large.json()["detail"]) == {"found", "expected", "do"}
    paths = (("GET", ""), ("POST", "/snapshots"), ("GET", "/snapshots"), ("DELETE", ""), ("POST", "/nowhere"))
    for verb, path in paths:
        assert _asked(front, verb, f"/v1/streams/s{path}").status_code == 200
    _asked(front, "GET", "/livez")
    registry = front.metrics._registry
    counted = {
        (sample.labels["endpoint"], sample.labels["code"]): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "acclimate_front_requests_total"
    }
    ones = {(name, "200"): 1 for name in ("status", "keep", "snapshots", "delete", "none", "livez")}
    assert counted == {("rollback", "413"): 2, **ones}


def test_what_several_processes_need_is_said(tmp_path: Path) -> None:
    for processes, settings, what in (
        (1, {"state_dir": tmp_path, "source": (SOURCE, None)}, "expected 2..64"),
        (65, {"state_dir": tmp_path, "source": (SOURCE, None)}, "expected 2..64"),
        (2, {"source": (SOURCE, None)}, "--state-dir"),
        (2, {"state_dir": tmp_path}, "load by name"),
    ):
        with pytest.raises(ValueError, match=what):
            serve_processes(Settings(**settings), processes)


def test_settings_travel_as_json() -> None:
    told = {"state_dir": Path("state"), "source": ("a:b", None), "share": (1, 3), "limits": Limits(queue=3)}
    for settings in (Settings(**told), Settings(method=methods.build("palm"), guard=build_guard("default"), **told)):
        found = settings_of(json.loads(json.dumps(words_of(settings))))
        assert found.method == methods.build(settings.method) and found.guard == build_guard(settings.guard)
        rest = {"method": "tent", "guard": None}
        assert replace(found, **rest) == replace(settings, **rest)
