"""Lanes, the budget of learning, packed states and the updating process, each by itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from acclimate.serve import learning
from acclimate.serve.asked import Batch
from acclimate.serve.lanes import Full, Lanes
from acclimate.serve.learning import Learning
from acclimate.serve.metrics import Metrics
from acclimate.serve.packed import Packed
from acclimate.serve.remote import Remote
from acclimate.serve.service import Service
from acclimate.serve.settings import Limits, Settings
from acclimate.serve.stream import Stream

from .chain import learned
from .served import __file__ as served_file
from .served import images, network, overlay


def test_lanes_keep_order_within_a_key_and_run_keys_side_by_side() -> None:
    done: dict[str, list[int]] = defaultdict(list)
    at_once: dict[str, int] = defaultdict(int)
    both = threading.Barrier(2, timeout=20)

    def start():
        def work(key: str) -> None:
            at_once[key] += 1
            assert at_once[key] == 1, "two threads in one lane"
            job = lanes.take(key)
            assert job is not None
            if job == 0:
                both.wait()  # passes only if both keys run at once
            done[key].append(job)
            at_once[key] -= 1

        return work

    lanes = Lanes[int]("test", start, workers=2, per_lane=50, total=100)
    for job in range(50):
        lanes.put("a", job)
        lanes.put("b", job)
    with pytest.raises(Full) as everywhere:
        lanes.put("c", 0)
    assert everywhere.value.everywhere
    lanes.open()
    assert lanes.settle(20)
    assert done == {"a": list(range(50)), "b": list(range(50))}
    assert lanes.close() == []


def test_lanes_are_bounded_cleared_and_used_again() -> None:
    seen: list[int] = []
    lanes = Lanes[int]("test", lambda: lambda key: seen.append(lanes.take(key) or -1), workers=1, per_lane=2, total=9)
    lanes.put("a", 1)
    lanes.put("a", 2)
    with pytest.raises(Full) as here:
        lanes.put("a", 3)
    assert not here.value.everywhere and len(lanes) == 2
    assert lanes.clear("a") == [1, 2] and len(lanes) == 0
    lanes.put("a", 4)
    lanes.open()
    assert lanes.settle(20) and seen == [4]
    lanes.put("b", 5)
    assert lanes.settle(20) and seen == [4, 5]
    lanes.close()
    with pytest.raises(Full):
        lanes.put("a", 6)


def test_learning_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of 40 ms on a budget of 10 ms a batch: one batch in four is learned, and every one is accounted for."""
    now = 0.0

    class Learner:
        def step(self, state: Packed, x: torch.Tensor) -> object:
            nonlocal now
            now += 0.04
            return model.step(state, x)

    monkeypatch.setattr(learning.time, "perf_counter", lambda: now)
    model = overlay(guard=None)
    settings = Settings(update_budget=10.0, limits=Limits(stream_updates=1))
    books = Learning(settings, Metrics())
    stream = Stream("s", model.first, settings.limits, lambda line: None)
    books.open(Learner())
    taken = 0
    for seed in range(40):
        taken += books.offer(Batch(stream, images(seed), (str(seed),), (4,), ()))
        assert books.lanes.settle(20)
        assert stream.counts.updates * 40 <= (seed + 1) * 10 + 40
    books.lanes.close()
    assert stream.counts.updates == taken and taken + stream.counts.dropped == 40
    assert 9 <= taken <= 11


def test_an_update_that_was_overtaken_is_not_published() -> None:
    model = overlay(guard=None)
    lines: list[dict[str, object]] = []
    stream = Stream("s", model.first, Limits(), lines.append)
    base, after = stream.current, model.step(model.first, images(0)).state
    stream.reset()
    assert stream.learned(base, after) is None and stream.current.number == 1
    stream.freeze(True)
    assert stream.learned(stream.current, after) is None
    assert [line.get("outcome") for line in lines if line["event"] == "update"] == ["superseded", "superseded"]
    stream.freeze(False)
    assert stream.learned(stream.current, None) is stream.current
    published = stream.learned(stream.current, after)
    assert published is not None and published.number == 2


@pytest.mark.parametrize("method", ["tent", "rotta", "cotta", "t3a"])
def test_a_packed_state_is_the_state_in_any_overlay_and_after_any_way(method: str) -> None:
    """Loaded by an overlay that has never seen the stream, as bytes of another process, after other streams."""
    first, second = overlay(method=method), overlay(method=method)
    state, _ = learned(first, [images(0), images(1)])
    copied = Packed.load(state.dump())
    assert copied.same(state) and copied.digest() == state.digest()
    learned(second, [images(9)])
    assert torch.equal(second.answer(copied, images(2)).logits, first.answer(state, images(2)).logits)
    ours, theirs = first.step(state, images(3)).state, second.step(copied, images(3)).state
    assert ours is not None and theirs is not None and ours.digest() == theirs.digest()
    assert state.digest() == copied.digest(), "a step writes on the state it starts from"


def test_a_thousand_small_states_weigh_what_their_numbers_weigh() -> None:
    model = overlay(guard=None)
    state, _ = learned(model, [images(0)])
    numbers = sum(tensor.nbytes for tensor in state.tensors().values())
    assert state.bytes < 2 * numbers + 1000
    others = [learned(model, [images(seed)])[0] for seed in range(3)]
    assert all(other.layout is state.layout for other in others)


def test_an_updating_process_makes_the_same_steps_and_may_end_or_hang(tmp_path: Path) -> None:
    model = overlay(guard=None)
    source = (f"{Path(served_file).resolve()}:network", None)
    settings = Settings(guard=None, updater="process", source=source, limits=Limits(update_seconds=4.0))
    remote = Remote(settings, model.identity())
    try:
        state = model.first
        for seed in range(3):
            ours, theirs = model.step(state, images(seed)), remote.step(state, images(seed))
            assert ours.state is not None and theirs.state is not None
            assert ours.state.digest() == theirs.state.digest()
            assert (ours.outcome, ours.values) == (theirs.outcome, theirs.values)
            state = ours.state
        with pytest.raises(RuntimeError, match="the model cannot take"):
            remote.step(state, images(0)[:, :1])
        assert remote._process is not None
        assert os.getsid(remote._process.pid) == remote._process.pid, "what a terminal tells the server reaches it"
        for each in (signal.SIGINT, signal.SIGTERM):
            remote._process.send_signal(each)
        assert remote.step(state, images(3)).state is not None
        remote._process.kill()
        with pytest.raises((EOFError, OSError)):
            remote.step(state, images(4))
        ours, theirs = model.step(state, images(4)), remote.step(state, images(4))  # by another one
        assert ours.state is not None and theirs.state is not None and ours.state.digest() == theirs.state.digest()
        hanging = remote._process
        hanging.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError, match="within 4 seconds"):
            remote.step(state, images(5, rows=1000))  # more than a socket takes before somebody reads
        assert hanging.poll() is not None, "it is ended, not left behind"
    finally:
        remote.close()


@contextmanager
def _hanging(seconds: float) -> Iterator[Remote]:
    """With a process that reads nothing and says nothing."""
    remote, (ours, theirs) = Remote.__new__(Remote), socket.socketpair()
    remote._settings = Settings(limits=Limits(update_seconds=seconds))
    remote._connection, remote._ended = Connection(ours.detach()), False
    with theirs:
        remote._process = subprocess.Popen(["sleep", "60"], pass_fds=[theirs.fileno()])
    try:
        yield remote
    finally:
        remote.close()


@pytest.mark.parametrize("rows", [1, 1000])
def test_an_updating_process_that_hangs_is_ended_in_time(rows: int) -> None:
    """Whether it has taken the batch or does not even do that."""
    model = overlay(guard=None)
    with _hanging(0.3) as remote, pytest.raises(TimeoutError, match=r"within 0.3 seconds"):
        remote.step(model.first, images(0, rows))
    with _hanging(60.0) as remote:
        timer = threading.Timer(0.2, remote.end)
        timer.start()
        with pytest.raises((EOFError, OSError)) as caught:
            remote.step(model.first, images(0, rows))
        assert not isinstance(caught.value, TimeoutError)
        with pytest.raises(OSError, match="about to end"):
            remote.step(model.first, images(0))


def test_what_is_not_learned_costs_no_credit() -> None:
    """A batch that found no room, was dropped or failed gives back what was set aside for it."""
    model, settings = overlay(guard=None), Settings(update_budget=10.0, limits=Limits(updates=1))
    books, batch = Learning(settings, Metrics()), images(0)

    class Broken:
        def step(self, state: Packed, x: torch.Tensor) -> object:
            raise RuntimeError("no")

    stream = Stream("s", model.first, settings.limits, lambda line: None)
    books._expected = 5.0
    assert books.offer(Batch(stream, batch, ("1",), (4,), ())) and stream.credit == 5.0
    other = Stream("other", model.first, settings.limits, lambda line: None)
    assert not books.offer(Batch(other, batch, ("2",), (4,), ())) and other.credit == 10.0
    books.forget(stream, "reset")
    assert stream.credit == 10.0
    books._expected = 1e6
    books._settings = Settings(update_budget=1e6, limits=Limits(updates=1))
    assert books.offer(Batch(stream, batch, ("3",), (4,), ())) and stream.credit < 1e6
    books.open(Broken())
    assert books.lanes.settle(20) and stream.credit > 9e5
    books.lanes.close()


def test_a_state_beyond_its_bound_is_not_published() -> None:
    settings = Settings(guard=None, update="inline", limits=Limits(state_bytes=100))
    service = Service(settings, network())
    service.open()
    try:
        for seed in range(2):
            assert service.predict("s", images(seed)).result(20).version == 0
        status = service.stream("s").status()
        assert (status["refused"], status["updates"], status["version"]) == (2, 0, 0)
    finally:
        service.close()


def test_an_updating_process_needs_a_model_with_a_name() -> None:
    with pytest.raises(ValueError, match="load by name"):
        Settings(updater="process")
