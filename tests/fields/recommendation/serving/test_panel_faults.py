"""What other people's workers, files and questions may do to a panel, and must not."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acclimate.fields.recommendation.merging.folder import save_member, save_merged
from acclimate.fields.recommendation.merging.merged import merge
from acclimate.fields.recommendation.models.registry import build
from acclimate.fields.recommendation.serving.panel import Panel
from acclimate.fields.recommendation.serving.wire import read_question, write_answer
from acclimate.fields.recommendation.serving.worker import READY, UNABLE, answer_over
from acclimate.fields.recommendation.serving.workers import Worker

IDS = torch.tensor([[0, 5], [4, 11]])

Answering = Callable[[Any], None]


class Sums(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return ids.double().sum(1)


def good(wire: Any) -> None:
    answer_over(Sums(), wire)


def saying(answer: Callable[[int, Tensor], bytes]) -> Answering:
    def run(wire: Any) -> None:
        wire.send_bytes(READY)
        while True:
            wire.send_bytes(answer(*read_question(wire.recv_bytes())))

    return run


def threaded(answering: Answering) -> Callable[[], Worker]:
    """A worker that is a thread."""

    def start() -> Worker:
        ours, theirs = multiprocessing.Pipe()

        def run() -> None:
            try:
                answering(theirs)
            except (EOFError, OSError):
                theirs.close()

        threading.Thread(target=run, daemon=True).start()
        return Worker(ours)

    return start


class Forked:
    """A worker that is a process, which is remembered."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def __call__(self) -> Worker:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process: Any = context.Process(target=self._answer, args=(theirs, ours), daemon=True)
        process.start()
        theirs.close()
        self.made.append(process)

        def end() -> None:
            process.kill()
            process.join()

        return Worker(ours, end)

    def _answer(self, wire: Any, other: Any) -> None:
        other.close()
        torch.set_num_threads(1)
        good(wire)


@pytest.fixture
def panel() -> Iterator[Panel]:
    with Panel([threaded(good), threaded(good)], deadline=10) as made:
        assert made.ready(20)
        yield made


@pytest.mark.parametrize(
    "ids", [IDS[0], IDS[None], IDS.double(), IDS > 0, IDS.numpy(), IDS.tolist()], ids=lambda ids: type(ids).__name__
)
def test_a_wrong_question_is_the_askers_alone(panel: Panel, ids: Any) -> None:
    with pytest.raises(ValueError, match="the ids are"):
        panel(ids)
    assert panel(IDS).logits.tolist() == [5.0, 15.0]


def test_other_whole_numbers_are_ids_too(panel: Panel) -> None:
    assert panel(IDS.to(torch.int16)).logits.tolist() == [5.0, 15.0]
    assert panel(IDS[:0]).logits.tolist() == []


def test_deadlines_of_a_question(panel: Panel) -> None:
    for deadline in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="deadline"):
            panel(IDS, deadline=deadline)
    with Panel([threaded(saying(lambda *_: time.sleep(1) or b""))], deadline=9) as slow:
        assert slow.ready(20)
        with pytest.raises(TimeoutError, match=r"in 0\.05 s"):
            slow(IDS, deadline=0.05)
        assert slow.seen().incomplete == 1  # a question that failed is one


def test_a_closed_panel_says_so() -> None:
    panel = Panel([threaded(good)])
    panel.close()
    panel.close()
    with pytest.raises(RuntimeError, match="closed"):
        panel(IDS)
    with pytest.raises(RuntimeError, match="closed"):
        panel.ready()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda number, ids: b"xx", "2 bytes"),
        (lambda number, ids: b"\1" * 40, "of kind 1|question"),
        (lambda number, ids: write_answer(number, torch.zeros(len(ids) + 1), 0.0), "3 numbers for 2 rows"),
        (lambda number, ids: write_answer(number + 1, torch.zeros(len(ids)), 0.0), "instead of"),
        (lambda number, ids: write_answer(number, torch.zeros(len(ids)), 0.0)[:-1], "7 bytes"),
    ],
)
def test_a_worker_that_garbles_is_left_out_and_started_anew(answer: Any, why: str) -> None:
    with Panel([threaded(good), threaded(saying(answer))], deadline=5) as panel:
        assert panel.ready(20)
        found = panel(IDS)
        assert found.logits.tolist() == [5.0, 15.0] and found.seconds < 4
        assert any(each in found.missing[1] for each in why.split("|"))
        assert panel.ready(20) and panel(IDS).arrived == (0,) and panel.seen().starts[1] >= 2


def test_numbers_that_are_not_finite_are_the_members_fault() -> None:
    broken = threaded(saying(lambda number, ids: write_answer(number, torch.full((len(ids),), float("nan")), 0.0)))
    with Panel([broken, broken], deadline=5, prior=-1.0) as panel:
        assert panel.ready(20)
        for _ in range(2):
            found = panel(IDS)
            assert found.logits.tolist() == [-1.0, -1.0] and "not finite" in found.missing[1]
        assert panel.seen().starts == (1, 1)


class Strange(RuntimeError):
    pass


def test_a_lane_outlives_whatever_a_start_or_a_wire_raises() -> None:
    class Bad:
        def recv_bytes(self) -> bytes:
            raise Strange("of a wire")

        def close(self) -> None:
            raise Strange("of closing")

    def end() -> None:
        raise Strange("of ending")

    ways: list[Callable[[], Worker]] = [lambda: Worker(Bad(), end), threaded(good)]  # type: ignore[arg-type]

    def start() -> Worker:
        if len(ways) == 2 and not tried:
            tried.append(1)
            raise Strange("of starting")
        return ways.pop(0)()

    tried: list[int] = []
    with Panel([start], deadline=5, prior=0.0) as panel:
        reasons: set[str] = set()
        until = time.monotonic() + 20
        while not (found := panel(IDS)).arrived and time.monotonic() < until:
            reasons.update(found.missing.values())
            time.sleep(0.01)
        assert found.logits.tolist() == [5.0, 15.0]
        assert any("of starting" in each for each in reasons) and any("of a wire" in each for each in reasons)


def test_a_worker_that_is_stopped_is_ended_even_while_a_question_is_being_sent() -> None:
    big = torch.zeros(20000, 39, dtype=torch.int64)
    first = Forked()
    with Panel([first, threaded(good)], deadline=3, hung=4.0) as panel:
        assert panel.ready(20) and panel(big, deadline=20).arrived == (0, 1)
        os.kill(first.made[0].pid, signal.SIGSTOP)
        assert panel(big).arrived == (1,)
        until = time.monotonic() + 40
        while panel(IDS).arrived != (0, 1):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert panel.seen().starts == (2, 1)


def test_closing_does_not_wait_for_one_that_reads_nothing() -> None:
    big = torch.zeros(20000, 39, dtype=torch.int64)
    stopped = Forked()
    panel = Panel([stopped], deadline=0.2, hung=1000, prior=0.0)
    assert panel.ready(20)
    os.kill(stopped.made[0].pid, signal.SIGSTOP)
    assert panel(big).arrived == ()
    begun = time.monotonic()
    panel.close()
    assert time.monotonic() - begun < 4 and not stopped.made[0].is_alive()


def test_closing_does_not_wait_for_one_that_cannot_be_ended() -> None:
    panel = Panel([threaded(saying(lambda *_: time.sleep(60) or b""))], deadline=0.1, prior=0.0)
    assert panel.ready(20) and panel(IDS).arrived == ()
    begun = time.monotonic()
    panel.close()
    assert time.monotonic() - begun < 4


def test_a_panel_that_is_dropped_ends_its_workers() -> None:
    workers = Forked()
    panel = Panel([workers], deadline=5)
    assert panel.ready(20) and panel(IDS).arrived == (0,)
    del panel
    gc.collect()
    assert not workers.made[0].is_alive()


def test_a_member_that_cannot_be_loaded_tells_why_and_is_not_tried_all_the_time() -> None:
    def unable(wire: Any) -> None:
        wire.send_bytes(UNABLE + b"ValueError: no weights")

    begun = time.monotonic()
    with Panel([threaded(unable), threaded(good)], deadline=5, prior=0.0) as panel:
        assert not panel.ready(60)
        assert time.monotonic() - begun < 30
        assert "ValueError: no weights" in panel(IDS).missing[0]
        time.sleep(2.0)
        found = panel(IDS)
        assert "ValueError: no weights" in found.missing[0] and panel.seen().starts[0] <= 5


def test_files_and_weights_are_checked_before_anything_is_started(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"m\.safetensors is not a readable"):
        Panel([path])
    save_member(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match=r"m\.safetensors holds weights of a model of your own"):
        Panel([path])
    with pytest.raises(ValueError, match="median takes no weights"):
        Panel([threaded(good)], how="median", weights=[1.0])
    with Panel([threaded(good), threaded(good)], weights=[1, 3]) as panel:
        assert panel.ready(20)


def test_a_folder_is_a_panel(tmp_path: Path) -> None:
    models = [build("fnn", (5, 7), preset="small", seed=seed) for seed in range(2)]
    one = merge(models, "prob_mean", weights=[1, 4])
    with Panel.of(save_merged(one, tmp_path), deadline=30) as panel:
        assert panel.ready(200)
        torch.testing.assert_close(panel(IDS).logits, one(IDS).detach())
