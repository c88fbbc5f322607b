"""Members that listen, in a process of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Client
from pathlib import Path

import pytest
import torch

from acclimate.fields.recommendation.merging.folder import save_member
from acclimate.fields.recommendation.models.ranker import Ranker
from acclimate.fields.recommendation.models.registry import build
from acclimate.fields.recommendation.serving.panel import Panel
from acclimate.fields.recommendation.serving.sockets import admitted, called
from acclimate.fields.recommendation.serving.worker import READY
from acclimate.fields.recommendation.serving.workers import remote

IDS = torch.tensor([[0, 5], [4, 11], [2, 8]])
HOST = "127.0.0.1"

_LISTEN = """
import sys
from acclimate import recommendation as rec
rec.listen(sys.argv[1], "127.0.0.1", 0, b"key", bound=lambda port: print(port, flush=True))
"""

_SCRIPT = """
import sys
import torch
from acclimate import recommendation as rec
print("runs", flush=True)
with rec.Panel([sys.argv[1]], deadline=30) as panel:
    assert panel.ready(200)
    print(panel(torch.tensor([[0, 5]])).arrived, flush=True)
"""


@pytest.fixture(scope="module")
def model() -> Ranker:
    return build("fnn", (5, 7), preset="small").eval()


@pytest.fixture(scope="module")
def path(model: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("listening") / "m.safetensors"
    save_member(model, path)
    return path


@pytest.fixture(scope="module")
def port(path: Path) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", _LISTEN, path], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        assert server.poll() is None  # nothing ended it
        server.kill()


def test_several_panels_are_answered_at_once(model: Ranker, port: int) -> None:
    with (
        Panel([remote(HOST, port, b"key")], deadline=20) as one,
        Panel([remote(HOST, port, b"key")], deadline=20) as two,
    ):
        assert one.ready(20) and two.ready(20)
        for panel in (two, one):
            torch.testing.assert_close(panel(IDS).logits, model(IDS).detach())


def test_who_does_not_know_the_key_is_not_let_in(port: int) -> None:
    with Panel([remote(HOST, port, b"wrong")], deadline=0.2, prior=0.5) as panel:
        assert not panel.ready(1)
        assert panel(IDS).logits.tolist() == [0.5] * 3


def test_a_stranger_who_says_nothing_keeps_nobody_out(port: int) -> None:
    with socket.create_connection((HOST, port)), Panel([remote(HOST, port, b"key")], deadline=20) as panel:
        assert panel.ready(4) and panel(IDS).arrived == (0,)


def test_what_is_no_question_ends_its_own_connection_alone(port: int) -> None:
    with Panel([remote(HOST, port, b"key")], deadline=20) as panel:
        assert panel.ready(20)
        for question in (b"abc", b"\xff" * 24):
            with Client((HOST, port), authkey=b"key") as caller:
                assert caller.recv_bytes() == READY
                caller.send_bytes(question)
                with pytest.raises((EOFError, ConnectionResetError)):
                    caller.recv_bytes()
        assert panel(IDS).arrived == (0,) and panel.seen().starts == (1,)


def test_one_that_never_proves_itself_is_left_after_a_while() -> None:
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=r"within 0\.3 s"):
            called(HOST, port, b"key", patience=0.3)
        with socket.create_connection((HOST, port)):
            for caller in (silent.accept()[0], silent.accept()[0]):  # the first is gone, the second says nothing
                with caller, pytest.raises((OSError, EOFError)):
                    admitted(caller, b"key", patience=0.3)
        assert time.monotonic() - begun < 5
        panel = Panel([remote(HOST, port, b"key")], prior=0.0)  # it hangs in the proof
        time.sleep(0.2)
        begun = time.monotonic()
        panel.close()
        assert time.monotonic() - begun < 7


def test_a_script_needs_no_guard(path: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    found = subprocess.run([sys.executable, script, path], capture_output=True, text=True, timeout=280, check=False)
    assert found.stdout.split("\n") == ["runs", "(0,)", ""] and not found.returncode, found.stderr
