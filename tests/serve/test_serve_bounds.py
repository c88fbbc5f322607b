"""Everything that could grow has a bound, and health is told whatever happens."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import safetensors.torch

from acclimate.cli.app import parse
from acclimate.serve.app import create_app
from acclimate.serve.metrics import Metrics
from acclimate.serve.settings import Limits, Settings, is_loopback

from .served import CONTENT, Nursery, Server, images, network

BODY = safetensors.torch.save({"inputs": images(0)})


def _flood(server: Server, requests: int, clients: int, streams: int) -> Counter[int]:
    """So many requests from so many clients at once; every refusal says when to try again."""
    codes: Counter[int] = Counter()
    lock = threading.Lock()

    def ask(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for count in range(requests // clients):
                path = f"/v1/streams/s{(number + count) % streams}/predict"
                answer = client.post(path, content=BODY, headers=CONTENT)
                assert answer.status_code in (200, 429, 503), answer.text
                assert answer.status_code == 200 or int(answer.headers["retry-after"]) > 0
                with lock:
                    codes[answer.status_code] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def _resident(server: Server) -> int:
    text = Path(f"/proc/{server.process.number}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("requests", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_is_flat_under_a_flood(nursery: Nursery, tmp_path: Path, requests: int) -> None:
    limits = {"stream_queue": 1, "queue": 4, "stream_updates": 1, "streams": 4, "history": 16, "audit_bytes": 100_000}
    with nursery.serving(tmp_path / "log", state_dir=str(tmp_path / "state"), limits=limits) as server:
        codes = _flood(server, requests // 2, clients=6, streams=5)
        before = _resident(server)
        codes += _flood(server, requests // 2, clients=6, streams=5)
        grown = _resident(server) - before
        print(
            f"{requests} requests, {dict(codes)}: {grown / 1e6:.1f} MB more after the second half than after the first"
        )
        assert grown < 8e6
        assert codes[200] > 0 and codes[503] > 0  # the fifth stream, at the least
        assert len(server.get("/v1/streams")["streams"]) == 4
        assert server.client.get("/readyz").status_code == 200


def test_full_queues_are_told_apart_and_health_passes_them_by(nursery: Nursery, tmp_path: Path) -> None:
    limits = {"stream_queue": 1, "queue": 5}
    with nursery.serving(tmp_path / "log", slow=0.3, update="off", limits=limits) as server:
        crowd: dict[str, Counter[int]] = {}
        done = threading.Event()

        def flood() -> None:
            crowd["one stream"] = _flood(server, 12, clients=4, streams=1)
            crowd["many"] = _flood(server, 24, clients=12, streams=12)
            done.set()

        thread = threading.Thread(target=flood)
        thread.start()
        asked = 0
        while not done.is_set():
            for path in ("/livez", "/readyz", "/metrics", "/v1/streams"):
                assert server.client.get(path).status_code == 200
                asked += 1
        thread.join()
        assert crowd["one stream"][200] and crowd["one stream"][429] and not crowd["one stream"][503], crowd
        assert crowd["many"][200] and crowd["many"][503] > crowd["many"][429], crowd  # two may meet on one stream
        assert asked > 10


def _chunked(server: Server, path: str, chunks: int) -> bytes:
    """The answer to a body of so many chunks of 32 KiB, empty where the server has hung up."""
    address = urlsplit(server.url)
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n".encode())
        connection.sendall(b"content-type: application/json\r\n\r\n")
        try:
            for _ in range(chunks):
                connection.sendall(chunk)
            connection.sendall(b"0\r\n\r\n")
            return connection.recv(4096)
        except OSError:
            return b""


def test_bodies_beyond_the_limits_are_refused_while_they_are_read(nursery: Nursery, tmp_path: Path) -> None:
    limits = {"body_bytes": 20_000, "rows": 8, "pixels": 100}
    with nursery.serving(tmp_path / "log", update="off", limits=limits) as server:
        assert server.post("s", images(0, rows=9)).status_code == 413
        assert server.post("s", images(0, rows=8)).status_code == 200

        for path, code in (("s/predict", b" 413 "), ("s/rollback", b" 413 "), ("s/nowhere", b" 404 ")):
            assert code in _chunked(server, f"/v1/streams/{path}", 2)  # nobody has asked for a token yet
            assert _chunked(server, f"/v1/streams/{path}", 8192) == b"", "256 MB were read"
        assert b" 413 " in server.raw("POST", "/v1/streams/s/predict", {**CONTENT, "content-length": "999999999"})
        other = server.client.post("/v1/streams/s/predict", content=b"x", headers={"content-type": "text/plain"})
        assert other.status_code == 415
        assert server.post("s", images(0)).status_code == 200


@pytest.mark.parametrize("name", [".hidden", "a%20b", "x" * 65, "a%2Fb", "%C3%BC", "a%0A", "%2e%2e"])
def test_names_of_streams_are_plain(inline: Server, name: str) -> None:
    before = [line["stream"] for line in inline.get("/v1/streams")["streams"]]
    head = {**CONTENT, "content-length": str(len(BODY))}
    first = inline.raw("POST", f"/v1/streams/{name}/predict", head, BODY).split(b"\r\n")[0]
    assert first.split()[1] in (b"404", b"422")
    assert [line["stream"] for line in inline.get("/v1/streams")["streams"]] == before


async def _ask(app: object, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        return await client.get(path)


def test_it_lives_before_it_is_ready() -> None:
    app = create_app(Settings(method="source"), network())  # whose life has not begun
    assert asyncio.run(_ask(app, "/livez")).status_code == 200
    ready = asyncio.run(_ask(app, "/readyz"))
    assert ready.status_code == 503 and ready.json() == {"ready": False, "reason": "the server is starting"}
    assert asyncio.run(_ask(app, "/v1/info")).status_code == 503


def test_held_at_source_is_a_signal_of_its_own(nursery: Nursery, tmp_path: Path) -> None:
    """Under a guard that bets on a change the source answers until a bet is won; the server is ready all along."""
    with nursery.serving(tmp_path / "log", update="inline", guard="betting") as server:
        logits, headers = server.predict("s", images(0))
        assert headers["acclimate-held-at-source"] == "true" and headers["acclimate-held"] == "4"
        expected = network()(images(0))
        assert bool((logits == expected).all())
        assert server.client.get("/readyz").status_code == 200
        assert server.status("s")["state"] == "held at source"
        assert 'acclimate_streams{state="held at source"} 1.0' in server.metrics()
        assert server.get("/v1/info")["guard"]["name"] == "betting"


def test_loopback_is_the_default_and_secrets_stay_secret() -> None:
    command = parse(["serve", "m.py:build"])
    assert is_loopback(vars(command)["host"]) and vars(command)["token_file"] is None
    assert Settings().token is None and Settings().state_dir is None
    assert "sesame" not in repr(Settings(token="open sesame, please"))
    with pytest.raises(ValueError, match="16 or more"):
        Settings(token="short")
    assert not any(map(is_loopback, ("0.0.0.0", "::", "example.org", "10.0.0.1")))


@pytest.mark.parametrize("change", [{"rows": 0}, {"kept": 1.5}, {"deadline": 0.0}, {"body_bytes": -1}])
def test_bounds_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Limits(**change)


def test_names_types_and_labels_of_metrics_are_an_interface() -> None:
    """`metrics.txt` is what dashboards rely on: a change there is a change for others."""
    registry = Metrics().registry
    lines = []
    for family in sorted(registry.collect(), key=lambda family: family.name):
        labels = registry._names_to_collectors[family.name]._labelnames
        lines.append(f"{family.name} {family.type} {','.join(labels) or '-'}")
    assert "\n".join(lines) + "\n" == (Path(__file__).parent / "metrics.txt").read_text()


def test_labels_are_few_whatever_is_asked(inline: Server) -> None:
    for number in range(20):
        inline.client.get(f"/v1/streams/nobody-{number}")
        inline.client.get(f"/nowhere/{number}")
    assert "nobody" not in inline.metrics() and "nowhere" not in inline.metrics()


def test_every_error_has_one_shape(inline: Server) -> None:
    asked = [
        inline.client.get("/nowhere"),
        inline.client.put("/livez"),
        inline.client.get("/v1/streams/nobody"),
        inline.client.post("/v1/streams/a/predict?update=perhaps", content=BODY, headers=CONTENT),
        inline.client.post("/v1/streams/a/predict", content=b"{", headers={"content-type": "application/json"}),
    ]
    assert [answer.status_code for answer in asked] == [404, 405, 404, 422, 422]
    for answer in asked:
        assert set(json.loads(answer.text)["detail"]) == {"found", "expected", "do"}
