"""Torch's own hooks: what they send by formula, what they train to, and the clock by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acclimate.fields.wide_area.reproduction import reproduce_decosgd
from acclimate.fields.wide_area.reproduction import run as running
from acclimate.fields.wide_area.reproduction import trials as kept
from acclimate.fields.wide_area.reproduction.hooks import Job, Trained, lay, read, train
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.simulate import sgd, simulate
from acclimate.fields.wide_area.reproduction.trials import Trial, courses
from acclimate.fields.wide_area.workloads import WORKLOADS

QUICK = Place(dense=8, away=2, workers=2)
NUMBERS = 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
RANK = 2


def test_half_precision_sends_half_and_trains_as_the_mean_of_rounded_gradients() -> None:
    found = train(Job(workload="digits", hook="fp16", rate=0.1, workers=2, limit=6, every=3))
    assert found.rounds == [[16 * NUMBERS]] * 6 and not found.diverged
    task = WORKLOADS["digits"]()
    model = task.build(0)
    draws = [task.batches(rank, 2, "iid", 0) for rank in range(2)]
    optimizer, scores = torch.optim.SGD(model.parameters(), 0.1), []
    for step in range(1, 7):
        both = [torch.autograd.grad(task.loss(model, draw()), list(model.parameters())) for draw in draws]
        for each, one, other in zip(model.parameters(), *both, strict=True):
            each.grad = (one.half() / 2 + other.half() / 2).float()
        optimizer.step()
        if step % 3 == 0:
            scores.append((step, pytest.approx(task.score(model), abs=0.003)))
    assert [tuple(each) for each in found.scores] == scores


def test_power_sgd_sends_factors_in_two_rounds_and_is_kept_for_other_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Trial(workload="digits", place=QUICK, contender="torch:powersgd", rate=0.1, limit=20)
    (course,) = courses(tmp_path, [asked])
    lefts = RANK * (256 + 128 + 10) + 256 + 128 + 10  # and what is no matrix
    rights = RANK * (64 + 256 + 128)
    (file,) = (tmp_path / "trials").glob("*trained*")
    assert read(file).rounds == [[32 * NUMBERS]] * 2 + [[32 * lefts, 32 * rights]] * 18
    assert course.bits == 2 * 32 * NUMBERS + 18 * 32 * (lefts + rights)
    rate = 32 * NUMBERS / (8 * 0.05)
    seconds = 20 * 0.05 + course.bits / rate + (2 + 2 * 18) * 0.1
    assert course.curve[-1][:2] == [pytest.approx(seconds), 20]
    assert course.stalled == pytest.approx(1 - 20 * 0.05 / seconds)

    def never(job: Job) -> Trained:
        raise AssertionError(job)

    monkeypatch.setattr(kept, "train", never)
    near = Trial(workload="digits", place=Place(dense=8, away=1, workers=2), contender="torch:powersgd", rate=0.1,
                 limit=20)  # fmt: skip
    assert courses(tmp_path, [near, asked])[0].curve[-1][0] == pytest.approx(seconds - (2 + 2 * 18) * 0.05)


def test_a_round_waits_for_the_one_before_it_and_for_the_link_of_the_moment() -> None:
    """10 bit/s, a tenth of it from 10 s to 30 s; latency 1 s; T 0.5 s."""
    place = Place(trace="drop", dense=80 / (10 * 0.5), away=2, compute=0.5, workers=2)
    trained = Trained([[60], [20, 5], [10]], [(2, 0.5), (3, 0.9)])
    found = lay(trained, place, dense_bits=80.0, target=0.9)
    # 0.5 + 6 + 1 = 7.5; 8 until 10, and 1; 11 + 5 + 1 = 17; 17.5 + 10 + 1 = 28.5
    assert found.curve == [(pytest.approx(17.0), 2, 0.5), (pytest.approx(28.5), 3, 0.9)]
    assert (found.seconds, found.iterations, found.bits) == (pytest.approx(28.5), 3, 95)
    assert found.stalled == pytest.approx(1 - 1.5 / 28.5)
    assert lay(trained, place, dense_bits=80.0, target=0.5).iterations == 2
    assert lay(Trained(), place, dense_bits=80.0, target=0.5).curve == []


def test_without_torch_distributed_the_hooks_are_left_out_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "unavailable", lambda: "no gloo here.")
    page, _ = reproduce_decosgd(tmp_path, methods=("dsgd", "torch:fp16"), seeds=(0,), places=[QUICK], limit=20)
    assert "Left out: torch's hook, half precision: no gloo here." in page.read_text()
    with pytest.raises(ValueError, match=r"torch:powersgd cannot be run here: no gloo here\."):
        reproduce_decosgd(tmp_path, methods=("torch:powersgd",), places=[QUICK])


def test_a_job_is_checked_and_a_hook_is_nothing_to_simulate() -> None:
    for wrong in ({"hook": "bf16"}, {"workload": "none"}, {"workers": 1}, {"rate": 0.0}, {"shards": "odd"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Job(**{"workload": "digits", "hook": "fp16", "rate": 0.1, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decides nothing"):
        simulate(WORKLOADS["digits"](), QUICK, kept.CONTENDERS["torch:fp16"], sgd(0.1))
