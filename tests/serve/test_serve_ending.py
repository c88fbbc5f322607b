"""Told to end, a server does so within its time, whatever it is doing, and loses nothing that it has begun."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn

from acclimate.serve.running import _Server
from acclimate.serve.service import Service
from acclimate.serve.settings import Settings
from acclimate.serve.store import Restored, Store

from .alone import alone
from .chain import events, manifest, states
from .served import Nursery, images, network
from .sharded import SOURCE

INPUTS = [images(seed) for seed in range(4)]


def test_a_signal_to_the_whole_group_loses_no_update(nursery: Nursery, tmp_path: Path) -> None:
    """As Ctrl-C and systemd send it: the process that learns for the server must not hear it."""
    told: Mapping[str, Any] = {"updater": "process", "source": (SOURCE, None), "state_dir": str(tmp_path / "state")}
    bounds = {"stream_updates": 8, "drain": 60.0}
    with nursery.serving(tmp_path / "log", persist_seconds=600.0, persist_every=1000, limits=bounds, **told) as server:
        for x in INPUTS:
            assert server.predict("s", x)[1]["acclimate-update"] == "queued"
        server.process.signal_group(signal.SIGTERM)
        assert server.process.wait(90) == 0, server.log.read_text()
    stream = tmp_path / "state" / "streams" / "s"
    assert manifest(stream)["current"] == len(INPUTS)
    assert not events(stream, "failed") and not events(stream, "dropped")
    states(stream, INPUTS)


def test_told_to_end_while_it_reads_its_streams_it_reads_no_more(tmp_path: Path, monkeypatch: Any) -> None:
    with alone(tmp_path) as service:
        for name in ("a", "b", "c"):
            service.predict(name, INPUTS[0]).result(20)
    service, load = Service(Settings(guard=None, update="inline", state_dir=tmp_path), network()), Store.load

    def told(store: Store, *which: Any) -> Restored:
        service.drain()
        return load(store, *which)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "load", told)
        service.open()
    assert [stream.name for stream in service.streams()] == ["a"]
    assert not service.ready and service.drained and service.failure is None
    service.close()
    with alone(tmp_path) as service:
        assert [stream.current.number for stream in service.streams()] == [1, 1, 1]


def test_what_is_still_on_its_way_gets_what_is_left_of_the_time() -> None:
    """Not as much again."""
    for left, expected in ((7.4, 7), (0.0, 1)):
        ending: Any = SimpleNamespace(failure=None, asked=1, drained=True, left=left)
        server = _Server(uvicorn.Config("nobody:asks", timeout_graceful_shutdown=99), ending)
        assert asyncio.run(server.on_tick(1))
        assert server.config.timeout_graceful_shutdown == expected
