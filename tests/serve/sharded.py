"""Several workers behind a front, as `acclimate serve --processes` starts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from .served import TOKEN, Server

SOURCE = f"{Path(__file__).with_name('served.py')}:network"


class Command:
    """A process, asked as those of the nursery are."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log, self.number = process, log, process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float = 60.0) -> int:
        return self._process.wait(seconds)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()


@contextmanager
def sharded(folder: Path, processes: int, **options: Any) -> Iterator[Server]:
    """A front with so many workers over `folder / "state"`, ready; all are gone in the end."""
    token, log = folder / "token", folder / f"log-{processes}"
    token.write_text(TOKEN)
    told = {"update": "inline", "guard": "none", "persist-every": 1, "deadline": 20, "drain": 10, **options}
    command = ["serve", SOURCE, "--processes", str(processes), "--state-dir", str(folder / "state"), "--port", "0"]
    command += ["--token-file", str(token)] + [
        part for name, value in told.items() for part in (f"--{name}", str(value))
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "acclimate.cli", *command], stdout=out, stderr=out, env=environment
        )
    try:
        url = _until(lambda: re.search(r"running on (http://\S+)", log.read_text()), process, log)[1]
        with httpx.Client(base_url=url, timeout=60) as client:
            _until(lambda: client.get("/readyz").status_code == 200, process, log)
            yield Server(Command(process, log), url, log, client)  # pyright: ignore[reportArgumentType]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(found: Any, process: subprocess.Popen[bytes], log: Path) -> Any:
    for _ in range(6000):
        if told := found():
            return told
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def workers(server: Server) -> dict[int, int]:
    """Process numbers of the workers, as the system tells them."""
    found = dict[int, int]()
    for number in Path(f"/proc/{server.process.number}/task/{server.process.number}/children").read_text().split():
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        if b"acclimate.serve.worker" in words:
            found[int(Path(words[-2].decode()).name)] = int(number)
    return found
