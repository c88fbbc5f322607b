"""What serving costs, as ratios of what is measured in turn in one run.

`python -m benchmarks.serving [latency] [throughput] [memory] [methods]` without a word runs all.

latency: p99 of answers while updates run in the background over p99 with `update=false`, one answering thread and one
client in both arms, by HTTP, for each way of updating; the client pauses between requests, or nothing would be learned
where one core has all to do. throughput: requests per second of frozen serving over those
of a bare FastAPI endpoint around the same model, same bodies, same threads. memory: what 1,000 Tent streams over one
ResNet-20 add to the process. methods: bytes of one stream's state, for `docs/measured/serving.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import safetensors.torch
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.served_model import SPEC, batch, write_weights
from benchmarks.timing import median_and_quartiles

JSON, SAFETENSORS = "application/json", "application/vnd.safetensors"


class Client:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, body: bytes, kind: str) -> bytes:
        self._connection.request("POST", path, body, {"Content-Type": kind})
        answer = self._connection.getresponse()
        found = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {found[:300]!r}")
        return found

    def get(self, path: str) -> tuple[int, bytes]:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def process(*command: str, ready: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            try:
                if Client(port).get(ready)[0] in (200, 405):
                    break
            except OSError:
                pass
            if started.poll() is not None:
                raise RuntimeError(f"{command} ended with {started.returncode}")
            time.sleep(0.1)
        yield started
    finally:
        started.terminate()
        started.wait(60)


@contextlib.contextmanager
def server(weights: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    command = ["acclimate.cli", "serve", SPEC, "--weights", str(weights), "--port", str(port), *options]
    with process(*command, ready="/readyz", port=port) as started:
        yield port, started


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def latency(weights: Path, out: Console, options: argparse.Namespace) -> None:
    table = Table(title=f"answers while updates run, batch {options.batch}: over frozen ones (goal: p99 at most 1.2)")
    columns = ("p50", "p99", "quartiles of p99", "frozen against frozen", "frozen p99, ms", "updates per answer")
    for column in ("updater", "guard", *columns):
        table.add_column(column, justify="left" if column in ("updater", "guard") else "right")
    for updater in options.updaters:
        for guard in options.guards:
            with server(weights, "--method", "tent", "--updater", updater, "--guard", guard) as (port, _):
                table.add_row(updater, guard, *_latency(Client(port), options))
    out.print(table)


def _latency(client: Client, options: argparse.Namespace) -> list[str]:
    body = safetensors.torch.save({"inputs": batch(options.batch)})
    arms = {"frozen": "false", "updating": "true", "frozen again": "false"}
    halves, tails, noise, frozen = list[float](), list[float](), list[float](), list[float]()
    for round_ in range(options.rounds + 1):
        taken = {arm: _asked(client, body, learn, options) for arm, learn in arms.items()}
        if round_ == 0:
            continue  # warm
        still = [*taken["frozen"], *taken["frozen again"]]
        frozen.append(percentile(still, 0.99))
        halves.append(percentile(taken["updating"], 0.5) / percentile(still, 0.5))
        tails.append(percentile(taken["updating"], 0.99) / frozen[-1])
        noise.append(percentile(taken["frozen again"], 0.99) / percentile(taken["frozen"], 0.99))
    updates = json.loads(client.get("/v1/streams/s")[1])["version"] / ((options.rounds + 1) * options.requests)
    middle, quartiles = median_and_quartiles(tails)
    return [
        f"{statistics.median(halves):.2f}",
        f"{middle:.2f}",
        quartiles,
        median_and_quartiles(noise)[1],
        f"{statistics.median(frozen) * 1e3:.1f}",
        f"{updates:.2f}",
    ]


def _asked(client: Client, body: bytes, learn: str, options: argparse.Namespace) -> list[float]:
    """Seconds of each answer; nothing waits to be learned when it returns."""
    taken = list[float]()
    for _ in range(options.requests):
        start = time.perf_counter()
        client.post(f"/v1/streams/s/predict?update={learn}", body, SAFETENSORS)
        taken.append(time.perf_counter() - start)
        time.sleep(options.pause / 1e3)
    while b'acclimate_waiting{queue="updates"} 0.0' not in client.get("/metrics")[1]:
        time.sleep(0.01)
    time.sleep(0.3)
    return taken


def throughput(weights: Path, out: Console, options: argparse.Namespace) -> None:
    table = Table(title="frozen serving over a bare FastAPI endpoint, requests per second (goal: at least 0.9)")
    for column in ("body", "batch", "guard", "ratio", "quartiles", "bare, requests/s"):
        table.add_column(column, justify="left" if column in ("body", "guard") else "right")
    port = free_port()
    with process("benchmarks.bare_endpoint", str(weights), str(port), ready="/docs", port=port):
        for guard in options.guards:
            with server(weights, "--method", "tent", "--update", "off", "--guard", guard) as (ours, _):
                for kind in (SAFETENSORS, JSON):
                    for rows in (1, options.batch):
                        x = batch(rows)
                        plain = json.dumps({"inputs": x.tolist()}).encode()
                        body = plain if kind == JSON else safetensors.torch.save({"inputs": x})
                        ratios, bare = [], []
                        for round_ in range(options.rounds + 1):
                            base = _rate(port, "/predict", body, kind, options.seconds)
                            ratio = _rate(ours, "/v1/streams/{}/predict", body, kind, options.seconds) / base
                            if round_:
                                ratios.append(ratio)
                                bare.append(base)
                        middle, quartiles = median_and_quartiles(ratios)
                        name = kind.partition("/")[2].removeprefix("vnd.")
                        table.add_row(
                            name, str(rows), guard, f"{middle:.2f}", quartiles, f"{statistics.median(bare):.0f}"
                        )
    out.print(table)


def _rate(port: int, path: str, body: bytes, kind: str, seconds: float, clients: int = 2) -> float:
    counts = [0] * clients
    end = time.perf_counter() + seconds

    def ask(number: int) -> None:
        client = Client(port)
        while time.perf_counter() < end:
            client.post(path.format(f"s{number}"), body, kind)
            counts[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def memory(weights: Path, out: Console, options: argparse.Namespace) -> None:
    body = safetensors.torch.save({"inputs": batch(8)})
    for guard in options.guards:
        with server(weights, "--method", "tent", "--update", "inline", "--guard", guard) as (port, started):
            client = Client(port)
            for _ in range(8):
                client.post("/v1/streams/first/predict", body, SAFETENSORS)
            before = _resident(started.pid)
            for number in range(options.streams):
                for _ in range(options.steps):
                    client.post(f"/v1/streams/s{number}/predict", body, SAFETENSORS)
            added = _resident(started.pid) - before
        out.print(
            f"{options.streams} Tent streams of {options.steps} updates over one ResNet-20, guard {guard}: "
            f"{added / 1e6:.0f} MB beyond the process with one stream (goal: at most 300 for 1,000)"
        )


def _resident(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def state_sizes() -> Iterator[tuple[str, int, int, str]]:
    """Method, bytes of its state before and after two batches over a ResNet-20 without a guard, remark."""
    from acclimate.core.method import methods
    from acclimate.models import cifar10_resnet20
    from acclimate.serve.overlay import Overlay
    from acclimate.serve.settings import Settings

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = cifar10_resnet20()
    for name in methods.classes():
        try:
            overlay = Overlay(model, Settings(method=name, guard=None))
            state = overlay.first
            for seed in range(2):
                state = overlay.step(state, batch(8, seed)).state or state
            yield name, overlay.first.bytes, state.bytes, ""
        except ValueError as error:
            yield name, 0, 0, str(error).partition(". ")[0]


_ABOVE = """# Bytes of a stream's state

Over one ResNet-20 (270,000 weights), without a guard; the default one adds its three numbers. A stream keeps up to four
versions in memory (`kept`), the current one among them. By `python -m benchmarks.serving methods --write FILE`.

"""


def methods(weights: Path, out: Console, options: argparse.Namespace) -> None:
    lines = ["| method | fresh, kB | after two batches of 8, kB | 1,000 streams, MB |", "|---|--:|--:|--:|"]
    for name, first, after, remark in state_sizes():
        told = f"| {name} | {first / 1e3:.1f} | {after / 1e3:.1f} | {after / 1e3:.0f} |"
        lines.append(f"| {name} | {remark} | | |" if remark else told)
        out.print(lines[-1])
    if options.write:
        Path(options.write).write_text(_ABOVE + "\n".join(lines) + "\n")


def main() -> None:
    parts = {"latency": latency, "throughput": throughput, "memory": memory, "methods": methods}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(parts))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--pause", type=float, default=20.0, help="milliseconds between an answer and the next request")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--updaters", nargs="+", default=["thread", "process"])
    parser.add_argument("--guards", nargs="+", default=["none", "default"])
    parser.add_argument("--write", help="file for the table of methods")
    options = parser.parse_args()
    out = Console(width=130)
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(Path(folder) / "resnet20.safetensors")
        for name in options.parts or parts:
            parts[name](weights, out, options)


if __name__ == "__main__":
    main()
