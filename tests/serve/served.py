"""A small model to serve, and servers of it as processes of their own.

Run as a script it has everything imported, and forks a server for each line that it is told: a server that starts
by itself takes seconds to import torch.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import safetensors.torch
import torch
from torch import Tensor, nn

from acclimate.serve.overlay import Overlay
from acclimate.serve.settings import Limits, Settings

TOKEN = "a token for the tests"
CONTENT = {"content-type": "application/vnd.safetensors", "accept": "application/vnd.safetensors"}
CONTROL = {"authorization": f"Bearer {TOKEN}"}


def network(seed: int = 0) -> nn.Module:
    """Takes images `[N, 3, 8, 8]`, five classes."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 5)).eval()


def images(seed: int, rows: int = 4) -> Tensor:
    return torch.rand(rows, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def overlay(**settings: Any) -> Overlay:
    """What the server works with, here."""
    return Overlay(network(), Settings(**settings))


@dataclasses.dataclass
class Server:
    """A server that runs, and a client of it."""

    process: Process
    url: str
    log: Path
    client: httpx.Client

    def predict(self, stream: str, x: Tensor, **query: Any) -> tuple[Tensor, httpx.Headers]:
        """Logits, and what the headers say."""
        answer = self.post(stream, x, **query)
        assert answer.status_code == 200, answer.text
        return safetensors.torch.load(answer.content)["logits"], answer.headers

    def post(self, stream: str, x: Tensor, **query: Any) -> httpx.Response:
        body = safetensors.torch.save({"inputs": x})
        return self.client.post(f"/v1/streams/{stream}/predict", content=body, headers=CONTENT, params=query)

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self, stream: str) -> Any:
        return self.get(f"/v1/streams/{stream}")

    def control(self, stream: str, verb: str, body: Any = None) -> Any:
        answer = self.client.post(f"/v1/streams/{stream}/{verb}", json=body, headers=CONTROL)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def settled(self, stream: str) -> Any:
        """Its status once nothing waits to be learned."""
        for _ in range(400):
            if all(f'acclimate_waiting{{queue="{name}"}} 0.0' in self.metrics() for name in ("answers", "updates")):
                status = self.status(stream)
                if status["updates"] + status["idle"] + status["refused"] + status["dropped"] >= status["batches"]:
                    return status
            time.sleep(0.02)
        raise AssertionError(f"still waiting: {self.status(stream)}")

    def metrics(self) -> str:
        return self.client.get("/metrics").text

    def raw(self, verb: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, listen: bool = True) -> bytes:
        """The beginning of what is answered to bytes as they stand; without `listen`, the client hangs up at once."""
        address = urlsplit(self.url)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as connection:
            connection.sendall(f"{verb} {path} HTTP/1.1\r\nhost: here\r\n{lines}\r\n".encode() + body)
            return connection.recv(4096) if listen else b""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.signal(signal.SIGTERM)
        return self.process.wait()


class Nursery:
    """The process that servers are forked from."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.served"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=environment,
        )

    def ask(self, **words: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def launch(self, log: Path, **told: Any) -> Process:
        """A server's process, which may not have begun to listen."""
        log.write_text("")
        return Process(self, self.ask(do="fork", log=str(log), told=told), log)

    @contextmanager
    def serving(self, log: Path, **told: Any) -> Iterator[Server]:
        """A server that is ready; it is killed in the end."""
        process = self.launch(log, **told)
        try:
            url = process.listening()
            with httpx.Client(base_url=url, timeout=30) as client:
                while client.get("/readyz").status_code != 200:
                    assert process.alive(), log.read_text()
                    time.sleep(0.02)
                yield Server(process, url, log, client)
        finally:
            process.kill()
            process.wait()


class Process:
    """A child of the nursery."""

    def __init__(self, nursery: Nursery, number: int, log: Path) -> None:
        self._nursery, self.number, self._log = nursery, number, log
        self._code: int | None = None

    def alive(self) -> bool:
        if self._code is None:
            self._code = self._nursery.ask(do="poll", number=self.number)
        return self._code is None

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code, that of a signal negative."""
        end = time.monotonic() + seconds
        while self.alive():
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.01)
        assert self._code is not None
        return self._code

    def signal(self, number: int) -> None:
        if self.alive():
            os.kill(self.number, number)

    def signal_group(self, number: int) -> None:
        """To it and to what it has started, as a terminal does."""
        os.killpg(self.number, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def listening(self) -> str:
        """Its address."""
        for _ in range(1500):
            if found := re.search(r"running on (http://\S+)", self._log.read_text()):
                return found[1]
            assert self.alive(), self._log.read_text()
            time.sleep(0.02)
        raise AssertionError(self._log.read_text())


def _die_at(number: int) -> None:
    """Count every step of a write to the disk, and end the process at one of them as a power cut would."""
    counted = 0

    def counting(real: Any) -> Any:
        def step(*args: Any, **options: Any) -> Any:
            nonlocal counted
            counted += 1
            if counted == number:
                os._exit(77)
            return real(*args, **options)

        return step

    os.fsync = counting(os.fsync)
    os.replace = counting(os.replace)
    Path.replace = counting(Path.replace)
    Path.unlink = counting(Path.unlink)
    os.write = _half(counting(os.write), os.write, lambda: counted + 1 == number)


def _half(counted: Any, real: Any, now: Any) -> Any:
    def write(handle: int, data: bytes) -> int:
        if now():
            real(handle, data[: len(data) // 2])
        return counted(handle, data)

    return write


def serve_as(told: dict[str, Any]) -> None:
    """Settings and limits as told, and: `die_at`, a step of writing; `network`, another; `slow`, seconds a forward."""
    from acclimate.serve.running import serve

    logging.basicConfig(level=logging.INFO, force=True)
    die, seed, slow = told.pop("die_at", 0), told.pop("network", 0), told.pop("slow", 0.0)
    if "state_dir" in told:
        told["state_dir"] = Path(told["state_dir"])
    settings = Settings(**{"token": TOKEN, "guard": None} | told | {"limits": Limits(**told.get("limits", {}))})
    model = network(seed)
    if slow:
        model.register_forward_hook(lambda *_: time.sleep(slow))
    if die:
        _die_at(die)
    serve(settings, model, port=0)


def _fork(log: str, told: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()  # what is told to its group is told to no other
        out = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(0)
        serve_as(told)
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    os._exit(code)


def nurse() -> None:
    import acclimate.serve.running  # noqa: F401

    torch.set_num_threads(1)
    overlay(method="tent")
    codes: dict[int, int] = {}
    for line in sys.stdin:
        words = json.loads(line)
        if words["do"] == "fork":
            answer: int | None = _fork(words["log"], words["told"])
        else:
            number = words["number"]
            if number not in codes:
                ended, status = os.waitpid(number, os.WNOHANG)
                if ended:
                    codes[number] = os.waitstatus_to_exitcode(status)
            answer = codes.get(number)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    nurse()
