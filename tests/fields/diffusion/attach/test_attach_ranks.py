"""Real processes over gloo: each computes its part of the tokens, and all get the whole answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch
import torch.distributed as dist
from jobs import launch
from tiny_transformers import FAMILIES, built, drawn, trajectory
from torch import Tensor

from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.attach.compacted import Compacted
from acclimate.fields.diffusion.exchange.envelope import ENVELOPE
from acclimate.wire.faults import LinkFault

Found = dict[str, Any]


def apart(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))


def exact(size: int) -> tuple[str, ...]:
    """Strategies that lose nothing; "ulysses" wants as many heads as ranks, and the models have two."""
    return ("gather", "ring", "ulysses") if size == 2 else ("gather", "ring")


def compared(names: tuple[str, ...]) -> Found:
    size, found = dist.get_world_size(), {}
    for name in names:
        model, call = built(name)
        plain = trajectory(call, model, 3)
        each = {"spread": float(torch.stack(plain).std())}
        for strategy in exact(size):
            with compact(model, codec="whole", strategy=strategy) as compacted, compacted.image():
                each[strategy] = apart(trajectory(call, model, 3), plain)
        with compact(model, strategy="stale"):
            late = trajectory(call, model, 3)
        with compact(model, strategy="stale", devices=size):
            each |= {"stale": apart(late, plain), "late": apart(late, trajectory(call, model, 3))}
        with compact(model, codec="two_bit") as compacted:
            for seed in (1, 0):
                with compacted.image():
                    real = trajectory(call, model, 3, seed=seed)
            sent = compacted.stats().sent
        with compact(model, codec="two_bit", devices=size) as compacted:
            each["simulated"] = apart(real, trajectory(call, model, 3))
            each["bytes"] = sent - compacted.stats().sent
        each |= {"compressed": apart(real, plain), "after": apart(trajectory(call, model, 3), plain)}
        found[name] = each
    return found


def attempt(work: Callable[[], object]) -> tuple[str, float]:
    """The error that it raises, if it does, and after how many seconds."""
    began = time.monotonic()
    try:
        work()
    except (LinkFault, ValueError, TypeError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - began
    return "none", time.monotonic() - began


def stumbling(rank: int) -> Found:
    model, call = built("dit")
    plain = trajectory(call, model, 2)
    found: Found = {}
    with compact(model, codec="whole", timeout=60) as compacted:

        def stumble(*given: object) -> None:
            if rank == 1:
                raise ArithmeticError("out of range")

        handle = model.get_submodule("norm_out").register_forward_pre_hook(stumble)
        found["stumbled"] = attempt(lambda: trajectory(call, model, 1))
        handle.remove()
        found["unaware"] = attempt(lambda: trajectory(call, model, 1))
        compacted.reset()
        found["recovered"] = apart(trajectory(call, model, 2), plain)
        compacted.reset()
        found["odd"] = attempt(lambda: call(model, drawn(2, 4, 6, 6), 900))
        compacted.reset()
        found["differing"] = attempt(lambda: call(model, drawn(2 - rank, 4, 8, 8), 900))
        compacted.reset()
        model.train(rank == 0)
        found["training"] = attempt(lambda: trajectory(call, model, 1))
        model.eval()
        compacted.reset()
        found["again"] = apart(trajectory(call, model, 2), plain)
    return found


def parting(rank: int) -> Found:
    """Rank 1 fails outside of the model, in three ways; each time the next image is right."""
    model, call = built("dit")
    found: Found = {}
    latent = drawn(2, 4, 8, 8)
    with torch.no_grad():
        plain = [call(model, latent, 900)]

    def callback(compacted: Compacted) -> None:
        with compacted.image():
            call(model, latent, 900)
            if rank == 1:
                raise ArithmeticError("callback failed")
            call(model, latent, 800)

    def bad_call(compacted: Compacted) -> None:
        with compacted.image():
            if rank == 1:
                model(latent, steps=900)
            call(model, latent, 900)

    def other_noise(compacted: Compacted) -> None:
        with compacted.image():
            call(model, latent + rank, 900)

    with compact(model, codec="whole", timeout=60) as compacted:
        for work in (callback, bad_call, other_noise):
            found[work.__name__] = attempt(lambda work=work: work(compacted))
            with compacted.image():
                found[f"after {work.__name__}"] = apart([call(model, latent, 900)], plain)
        found["gathered"] = compacted.stats().gathered
    begun = time.monotonic()
    found["mistyped"] = attempt(lambda: compact(model, codec="two_bit" if rank == 0 else "twobit", timeout=1.0))
    found["waited"] = time.monotonic() - begun
    dist.barrier()
    handles: list[int] = []
    for _ in range(4):
        with compact(model, codec="whole", timeout=60):
            found["typed"] = apart([call(model, latent, 900)], plain)
        handles.append(len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0)
    found["handles"] = handles[-1] - handles[0]
    return found


def two(rank: int, size: int, folder: Path) -> Found:
    return {"families": compared(tuple(FAMILIES)), "stumbling": stumbling(rank), "parting": parting(rank)}


def four(rank: int, size: int, folder: Path) -> Found:
    return {"families": compared(("flux",))}


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What two ranks found; starting processes takes longer than anything they do."""
    return launch(two, 2, tmp_path_factory.mktemp("two"))


def check(found: Found, size: int) -> None:
    for name, each in found["families"].items():
        assert max(each[strategy] for strategy in exact(size)) < 1e-5, name
        assert each["late"] < 1e-5 < 1e-3 < each["stale"], name
        assert each["after"] == each["bytes"] == 0, name
        assert 1e-4 < each["compressed"] < 0.25 * each["spread"], name
        assert each["simulated"] < 0.2 * each["compressed"], name


def test_two_ranks_answer_as_one_process_and_as_the_simulation_does(of_two: list[Found]) -> None:
    assert [len(found["families"]) for found in of_two] == [len(FAMILIES)] * 2
    for found in of_two:
        check(found, 2)


@pytest.mark.slow
def test_four_ranks_do_as_well(tmp_path: Path) -> None:
    for found in launch(four, 4, tmp_path):
        check(found, 4)


def test_a_rank_that_fails_is_an_error_on_all_at_once_and_reset_makes_it_good(of_two: list[Found]) -> None:
    first, second = (found["stumbling"] for found in of_two)
    assert second["stumbled"][0] == "ArithmeticError: out of range"
    assert "rank 1 could not go on: ArithmeticError: out of range" in first["stumbled"][0]
    for found in (first, second):
        assert "Call reset() first" in found["unaware"][0]
        assert found["recovered"] < 1e-5 and found["again"] < 1e-5
        assert "[9] tokens for 2 devices" in found["odd"][0]
        assert found["differing"][0].startswith(("Disagreement", "PeerFault"))
        waits = [seconds for _, seconds in (found[name] for name in ("stumbled", "odd", "differing", "training"))]
        assert max(waits) < 30
    assert "Call eval()" in first["training"][0] and "rank 0 could not go on" in second["training"][0]


def test_a_failure_outside_of_the_model_is_an_error_on_all_at_once(of_two: list[Found]) -> None:
    first, second = (found["parting"] for found in of_two)
    assert second["callback"][0] == "ArithmeticError: callback failed"
    assert "rank 1 could not go on: ArithmeticError: callback failed" in first["callback"][0]
    assert second["bad_call"][0].startswith("TypeError")
    assert "rank 1 could not go on: TypeError" in first["bad_call"][0]
    for found in (first, second):
        assert "other inputs" in found["other_noise"][0]
        assert max(found[f"after {name}"] for name in ("callback", "bad_call", "other_noise")) < 1e-5
        assert max(found[name][1] for name in ("callback", "bad_call", "other_noise")) < 30


def test_the_output_is_counted(of_two: list[Found]) -> None:
    model, call = built("dit")
    latent = drawn(2, 4, 8, 8)
    numbers: list[int] = []
    hook = model.get_submodule("proj_out_2").register_forward_hook(lambda _m, _g, out: numbers.append(out.numel()))
    with torch.no_grad():
        call(model, latent, 900)
    hook.remove()
    assert all(found["parting"]["gathered"] == 4 * numbers[0] // 2 + ENVELOPE for found in of_two)


def test_a_mistyped_codec_on_one_rank_ends_no_later_call_and_groups_are_taken_down(of_two: list[Found]) -> None:
    first, second = (found["parting"] for found in of_two)
    assert first["mistyped"][0].startswith("LostPeer: ranks [1] did not come within 1 s")
    assert second["mistyped"][0].startswith("ValueError") and "twobit" in second["mistyped"][0]
    for found in (first, second):
        assert found["typed"] < 1e-5
        assert found["handles"] <= 0
