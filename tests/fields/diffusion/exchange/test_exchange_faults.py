"""Every fault between real processes is an error on every rank at once, and the next image starts clean."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from jobs import launch
from torch import Tensor
from walk import LAYERS, digest, tensors, walk

from acclimate.fields.diffusion.exchange.real import Distributed
from acclimate.fields.diffusion.exchange.shards import cut
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.wire.faults import LinkFault

TIMEOUT = 6.0
STRATEGIES = ("gather", "ring", "stale", "ulysses")
FAULTS = ("shape", "first_shape", "dtype", "steps", "raises", "infinite", "layer", "branch")
STEPS = 4


def given(rank: int, size: int, step: int, layer: int, fault: str) -> list[Tensor]:
    """The shard of a rank, which the fault spoils on rank 1."""
    own = [cut(each, size)[rank] for each in tensors(step, layer)]
    if rank != 1 or layer != 1:
        return own
    if fault == "first_shape" or (fault == "shape" and step == 2):
        return [each[:, 1:] for each in own]
    if fault == "dtype" and step == 2:
        return [each.half() for each in own]
    if fault == "infinite" and step == 2:
        own[1][0, 0, 0, 0] = float("inf")
    if fault == "raises" and step == 2:
        raise ZeroDivisionError("the model broke")
    return own


def image(exchange: Distributed, rank: int, size: int, fault: str) -> None:
    """Evaluations of one image."""
    for step in range(STEPS):
        if fault == "steps" and rank == 1 and step == STEPS - 1:
            continue
        with exchange.evaluation(1 if fault == "branch" and rank == 1 and step == 2 else 0):
            for layer in range(LAYERS):
                number = 5 if fault == "layer" and rank == 1 and layer == 1 else layer
                exchange.attend(*given(rank, size, step, layer, fault), layer=number)


def caught(exchange: Distributed, rank: int, size: int, fault: str) -> dict[str, Any]:
    """The first error in two images; where one rank has too few evaluations, its own comes with the second."""
    found: dict[str, Any] = {"kind": "none", "text": "", "took": 0.0}
    for number in range(2):
        begun = time.monotonic()
        try:
            if number:
                exchange.reset()
            image(exchange, rank, size, "" if number else fault)
        except Exception as error:
            if found["kind"] == "none":
                kind = "LinkFault" if isinstance(error, LinkFault) else type(error).__name__
                found = {"kind": kind, "text": str(error), "took": time.monotonic() - begun}
    return found


def begin(exchange: Distributed) -> None:
    """Reset, and once more where that tells all ranks that they parted."""
    try:
        exchange.reset()
    except LinkFault:
        exchange.reset()


def alive(rank: int, size: int, folder: Path) -> dict[str, Any]:
    """Every fault that leaves the ranks alive, each followed by a clean image, with one exchange per strategy."""
    found: dict[str, Any] = {}
    for strategy in STRATEGIES:
        exchange = Distributed(strategy, ResidualSettings(codec="whole"), timeout=TIMEOUT)
        clean = digest(walk(exchange, 3, shard=(rank, size)))
        for fault in FAULTS:
            begin(exchange)
            found[f"{strategy} {fault}"] = caught(exchange, rank, size, fault)
            begin(exchange)
            again = digest(walk(exchange, 3, shard=(rank, size)))
            found[f"{strategy} {fault}"]["clean"] = again == clean
        exchange.close()
    for name, settings in (("codec", "two_bit" if rank == 1 else "one_bit"), ("size", "whole" if rank else "two_bit")):
        exchange = Distributed("gather", ResidualSettings(codec=settings), timeout=TIMEOUT)
        found[name] = caught(exchange, rank, size, "")
        exchange.close()
    exchange = Distributed("ring", ResidualSettings(warmup=1 + rank % 2), timeout=TIMEOUT)
    found["warmup"] = caught(exchange, rank, size, "")
    exchange.close()
    return found


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return launch(alive, 3, tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_fault_is_an_error_on_every_rank_at_once(strategy: str, fault: str, spoilt: list[Any]) -> None:
    own = {"raises": "ZeroDivisionError", "infinite": "ValueError", "shape": "ValueError", "dtype": "ValueError"}
    for rank, each in enumerate(spoilt):
        found = each[f"{strategy} {fault}"]
        assert found["kind"] in ({own.get(fault, "LinkFault"), "LinkFault"} if rank == 1 else {"LinkFault"}), found
        assert found["took"] < TIMEOUT / 2
        assert found["clean"]


def test_the_message_says_what_differs(spoilt: list[Any]) -> None:
    assert "[2, 7, 12, 8]" in spoilt[0]["gather first_shape"]["text"].replace("(", "[").replace(")", "]")
    assert "rank 1 could not go on: ZeroDivisionError: the model broke" in spoilt[2]["gather raises"]["text"]
    assert "not finite" in spoilt[0]["gather infinite"]["text"]
    assert "image" in spoilt[0]["gather steps"]["text"]
    assert "layer 5 (here 1)" in spoilt[0]["gather layer"]["text"]


@pytest.mark.parametrize("name", ["codec", "size", "warmup"])
def test_other_settings_are_found_at_once(name: str, spoilt: list[Any]) -> None:
    for each in spoilt:
        assert each[name]["kind"] == "LinkFault"
        assert each[name]["took"] < TIMEOUT / 2
        assert "settings" in each[name]["text"]


def hanging(rank: int, size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for strategy in ("gather", "ring"):
        exchange = Distributed(strategy, ResidualSettings(codec="whole"), timeout=2.0)
        walk(exchange, 2, shard=(rank, size))
        if rank == 1:
            time.sleep(4.0)
        found[strategy] = caught(exchange, rank, size, "")
        exchange.close()
        dist.barrier()
    return found


def dying(rank: int, size: int, folder: Path) -> dict[str, Any]:
    exchange = Distributed(json.loads((folder / "strategy.json").read_text()), timeout=TIMEOUT)
    walk(exchange, 2, shard=(rank, size))
    if rank == 1:
        (folder / "1.json").write_text("{}")
        os._exit(9)
    found = caught(exchange, rank, size, "")
    with pytest.raises((LinkFault, ValueError)):
        walk(exchange, 1, shard=(rank, size))
    exchange.close()
    return found


def test_a_rank_that_hangs_is_lost_after_the_timeout(tmp_path: Path) -> None:
    for each in launch(hanging, 3, tmp_path):
        for strategy in ("gather", "ring"):
            assert each[strategy]["kind"] == "LinkFault"
            assert each[strategy]["took"] < 6.0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_rank_that_dies_is_lost_at_once(strategy: str, tmp_path: Path) -> None:
    (tmp_path / "strategy.json").write_text(json.dumps(strategy))
    size = 4 if strategy == "ring" else 3  # in a ring of four, rank 3 is no neighbour of the lost one
    found = launch(dying, size, tmp_path, gone=1)
    for rank in (0, 2, 3)[: size - 1]:
        assert found[rank]["kind"] == "LinkFault"
        assert found[rank]["took"] < TIMEOUT / 2


def test_without_a_job_it_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="torchrun"):
        Distributed("gather")
