"""The recipes with the real Ray Serve and LitServe: whichever worker answers, a stream is one. Skipped without them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import safetensors.torch
import torch
from fastapi import HTTPException

from acclimate.serve.recipes.litserve import Streams, server
from acclimate.serve.recipes.ray_serve import application
from acclimate.serve.settings import Settings

from .chain import events, learned, same, states
from .served import CONTENT, images, overlay
from .sharded import SOURCE

INPUTS = [images(seed) for seed in range(12)]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _running(recipe: str, folder: Path, health: str) -> Iterator[httpx.Client]:
    """The recipe in a process of its own, with two workers."""
    port, log = _free_port(), folder / "log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "tests.serve.recipe", recipe, str(port), str(folder / "state")]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=environment, cwd=Path(__file__).parents[2]
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            end = time.monotonic() + 180
            while not _answers(client, health):
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            yield client
    finally:
        try:
            process.communicate(timeout=60)  # the end of its input ends it
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


def _as_one_model(folder: Path, ask: Callable[[str, torch.Tensor], tuple[torch.Tensor, int]]) -> None:
    """Each of three streams that ask side by side is answered as by one model, though several workers did it."""
    streams = ("a", "b", "c")
    _, expected = learned(overlay(guard=None), INPUTS)

    def follow(stream: str) -> list[tuple[torch.Tensor, int]]:
        return [ask(stream, x) for x in INPUTS]

    with ThreadPoolExecutor(len(streams)) as threads:
        for answers in threads.map(follow, streams):
            assert [version for _, version in answers] == list(range(len(INPUTS)))
            assert all(same(logits, wanted) for (logits, _), wanted in zip(answers, expected, strict=True))
    folders = [folder / "state/streams" / stream for stream in streams]
    assert any(events(each, "open") for each in folders), "no stream has changed hands: nothing was shown"
    for each in folders:
        states(each, INPUTS)


@pytest.mark.slow  # Ray takes its time to start
def test_ray_serve(tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", reason='needs pip install "acclimate[ray-serve]"')
    with _running("ray_serve", tmp_path, "/-/healthz") as client:

        def ask(stream: str, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            body = safetensors.torch.save({"inputs": x})
            answer = client.post(f"/v1/streams/{stream}/predict", content=body, headers=CONTENT)
            assert answer.status_code == 200, answer.text
            return safetensors.torch.load(answer.content)["logits"], int(answer.headers["acclimate-version"])

        _as_one_model(tmp_path, ask)
        refused = client.post("/v1/streams/s/predict", content=b"x" * 20_001, headers=CONTENT)
        assert refused.status_code == 413 and "20000" in refused.json()["detail"]["expected"]
        assert client.post("/v1/streams/.s/predict", json={"inputs": [[1.0]]}).status_code == 422


def test_litserve(tmp_path: Path) -> None:
    pytest.importorskip("litserve", reason='needs pip install "acclimate[litserve]"')
    with _running("litserve", tmp_path, "/health") as client:

        def ask(stream: str, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            answer = client.post("/predict", json={"stream": stream, "inputs": x.tolist()})
            assert answer.status_code == 200, answer.text
            return torch.tensor(answer.json()["logits"]), answer.json()["version"]

        _as_one_model(tmp_path, ask)
        assert client.post("/predict", content=b"x" * 20_001).status_code == 413
        refused = client.post("/predict", json={"stream": ".s", "inputs": [[1.0]]})
        assert refused.status_code == 422 and "stream id" in refused.json()["detail"]["found"]


@pytest.mark.parametrize("update", ["false", 0, None])
def test_what_is_no_truth_value_does_not_teach(update: object) -> None:
    with pytest.raises(HTTPException) as refused:
        Streams.__new__(Streams).decode_request({"stream": "s", "inputs": [[1.0]], "update": update})
    assert refused.value.status_code == 422 and "true or false" in refused.value.detail


def test_what_a_recipe_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(state_dir=tmp_path)
    for module, extra, build in (("ray.serve", "ray-serve", application), ("litserve", "litserve", server)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"pip install .acclimate\[{extra}\]"):
            build((SOURCE, None), settings)
