"""Workers are real processes; what they compute is simple."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acclimate.fields.recommendation.merging.folder import save_member
from acclimate.fields.recommendation.models.registry import build
from acclimate.fields.recommendation.serving.lane import Worker
from acclimate.fields.recommendation.serving.panel import Panel
from acclimate.fields.recommendation.serving.wire import read_answer, read_question, write_answer, write_question
from acclimate.fields.recommendation.serving.worker import answer_over

SIZES = (5, 7)
IDS = torch.tensor([[0, 5], [4, 11], [2, 8]])


class Odd(nn.Module):
    """Answers `value`; what it does before depends on the first id."""

    def __init__(self, value: float, how: str) -> None:
        super().__init__()
        self.value, self.how = value, how

    def forward(self, ids: Tensor) -> Tensor:
        if int(ids[0, 0]) == 1:
            if self.how == "slow":
                time.sleep(0.6)
            elif self.how == "hangs":
                time.sleep(1000)
            elif self.how == "dies":
                os._exit(1)
            elif self.how == "refuses":
                raise IndexError("no such id")
            elif self.how == "nan":
                return torch.full((len(ids),), float("nan"))
        return torch.full((len(ids),), self.value)


def odd(value: float, how: str = "") -> Callable[[], Worker]:
    """A forked process: quick to start."""

    def start() -> Worker:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process: Any = context.Process(target=_answer, args=(value, how, theirs, ours), daemon=True)
        process.start()
        theirs.close()

        def end() -> None:
            process.kill()
            process.join()

        return Worker(ours, end)

    return start


def _answer(value: float, how: str, wire: Any, other: Any) -> None:
    other.close()
    torch.set_num_threads(1)
    answer_over(Odd(value, how), wire)


QUIET, LOUD = torch.tensor([[0, 5]] * 4), torch.tensor([[1, 5]] * 4)


def test_members_of_files_answer_as_the_merged_model_does(tmp_path: Path) -> None:
    models = [build(name, SIZES, preset="small", seed=seed).eval() for seed, name in enumerate(("fnn", "ipnn"))]
    for place, model in enumerate(models):
        save_member(model, tmp_path / f"{place}.safetensors")
    with Panel(
        [tmp_path / "0.safetensors", tmp_path / "1.safetensors"], deadline=20, weights=torch.tensor([1.0, 3.0])
    ) as panel:
        assert panel.ready(100)
        found = panel(IDS)
        torch.testing.assert_close(found.logits, 0.25 * models[0](IDS) + 0.75 * models[1](IDS))
        assert found.arrived == (0, 1) and not found.missing and found.seconds < 20
        with pytest.raises(ValueError, match=r"every member refused.*row 0, field 0 has the id 99"):
            panel(torch.tensor([[99, 5]]))
        seen = panel.seen()
        assert seen.incomplete == 0.5 and seen.starts == (1, 1) and 0 < seen.members[0] < seen.median


@pytest.mark.parametrize(
    ("how", "why"), [("slow", "too late"), ("refuses", "IndexError: no such id"), ("nan", "not finite")]
)
def test_a_member_that_is_late_or_refuses_is_left_out(how: str, why: str) -> None:
    with Panel([odd(1.0), odd(5.0, how), odd(3.0)], deadline=0.3) as panel:
        assert panel.ready(20)
        assert panel(QUIET).logits.tolist() == [3.0] * 4
        found = panel(LOUD)
        assert found.arrived == (0, 2) and why in found.missing[1] and found.logits.tolist() == [2.0] * 4
        assert found.seconds < 0.45
        time.sleep(0.6)
        assert panel(QUIET).arrived == (0, 1, 2)  # and its late answer is nobody's


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_worker_that_is_gone_is_started_anew(how: str) -> None:
    with Panel([odd(1.0), odd(5.0, how)], deadline=0.3, hung=0.5) as panel:
        assert panel.ready(20)
        assert panel(LOUD).logits.tolist() == [1.0] * 4
        until = time.monotonic() + 20
        while len(panel(QUIET).arrived) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert panel(QUIET).logits.tolist() == [3.0] * 4 and panel.seen().starts == (1, 2)
        assert panel.seen().incomplete > 0


def test_where_nobody_answers_there_is_the_prior_or_an_error() -> None:
    with Panel([odd(1.0, "slow")], deadline=0.1) as panel:
        assert panel.ready(20)
        with pytest.raises(TimeoutError, match=r"no member answered in 0\.1 s \(member 0: too late\)"):
            panel(LOUD)
    with Panel([odd(1.0, "slow")], deadline=0.1, prior=-2.0) as panel:
        assert panel.ready(20)
        found = panel(LOUD)
        assert found.logits.tolist() == [-2.0] * 4 and found.arrived == ()


def test_many_ask_at_once_and_get_their_own_answers() -> None:
    class Echo(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return ids[:, 0].float()

    def start() -> Worker:
        ours, theirs = multiprocessing.Pipe()
        threading.Thread(target=answer_over, args=(Echo(), theirs), daemon=True).start()
        return Worker(ours)

    wrong: list[int] = []
    with Panel([start, start], deadline=10, waiting=100) as panel:
        assert panel.ready(20)

        def ask(number: int) -> None:
            for _ in range(20):
                if panel(torch.full((2, 1), number)).logits.tolist() != [number] * 2:
                    wrong.append(number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and panel.seen().incomplete == 0


def test_numbers_go_over_the_wire_unchanged() -> None:
    number, ids = read_question(write_question(2**40, IDS))
    assert number == 2**40 and torch.equal(ids, IDS)
    logits = torch.tensor([-1.5, 1e-30, 3e38])
    assert read_answer(write_answer(7, logits, 0.25))[0] == 7 and read_answer(write_answer(7, logits, 0.25))[2] == 0.25
    assert torch.equal(torch.as_tensor(read_answer(write_answer(7, logits, 0.25))[1]), logits)


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no workers"):
        Panel([])
    with pytest.raises(FileNotFoundError, match="no file"):
        Panel([tmp_path / "none.safetensors"])
    for settings in ({"deadline": 0}, {"how": "sum"}, {"waiting": 0}, {"prior": float("nan")}, {"hung": -1}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Panel([odd(1.0)], **settings)  # type: ignore[arg-type]


def test_members_may_be_actors_of_ray(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason='needs pip install "acclimate[ray]"')
    from acclimate.fields.recommendation.serving.on_ray import actor

    models = [build(name, SIZES, preset="small").eval() for name in ("fnn", "dcn")]
    for place, model in enumerate(models):
        save_member(model, tmp_path / f"{place}.safetensors")
    (tmp_path / "2.safetensors").write_bytes(b"nothing")
    ray.init(include_dashboard=False, num_cpus=2, log_to_driver=False, logging_level="error")
    try:
        with Panel([actor(tmp_path / f"{place}.safetensors", num_cpus=0.5) for place in (0, 1)], deadline=20) as panel:
            assert panel.ready(100)
            torch.testing.assert_close(panel(IDS).logits, (models[0](IDS) + models[1](IDS)) / 2)
            panel.interrupt(1)
            torch.testing.assert_close(panel(IDS).logits, models[0](IDS))
            until = time.monotonic() + 60
            while len(panel(IDS).arrived) < 2:
                assert time.monotonic() < until
                time.sleep(0.1)
        with Panel([actor(tmp_path / "2.safetensors", num_cpus=0.5)], prior=0.0) as panel:
            assert not panel.ready(100)
            assert "not a readable safetensors file" in panel(IDS).missing[0]
    finally:
        ray.shutdown()
