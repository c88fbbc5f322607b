"""Real processes over gloo do what the simulation does, packet by packet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import launch
from walk import LAYERS, Seen, digest, tensors, walk

from acclimate.fields.diffusion.exchange.real import Distributed
from acclimate.fields.diffusion.exchange.shards import cut
from acclimate.fields.diffusion.exchange.simulated import Simulated
from acclimate.fields.diffusion.exchange.strategies import STRATEGIES
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.exchange.ulysses import Ulysses
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.links.traces import constant
from acclimate.wire.emulated_peers import EmulatedPeers
from acclimate.wire.faults import Disagreement, LinkFault
from acclimate.wire.peers import Peers

SETTINGS: dict[str, ResidualSettings] = {
    "two_bit": ResidualSettings(),
    "one_bit": ResidualSettings(codec="one_bit", checksum_every=2, warmup=2),
    "open": ResidualSettings(codec="one_bit", feedback=False, own_block="reconstructed"),
    "second": ResidualSettings(order=2, refresh_every=3, own_block="reconstructed"),
    "direct": ResidualSettings(order=0),
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FEW = [*[(name, "two_bit", "float32") for name in STRATEGIES], ("slices", "two_bit", "float32")]
MANY = [
    *FEW,
    *[(name, "two_bit", dtype) for name in STRATEGIES for dtype in ("float16", "bfloat16")],
    *[(name, settings, "float32") for name in ("gather", "ring") for settings in SETTINGS if settings != "two_bit"],
]
CASES = {2: FEW, 3: MANY, 4: FEW}
LONG_CASES = {
    2: [("gather", "float16"), ("ring", "bfloat16")],
    3: [(name, dtype) for name in ("gather", "ring") for dtype in ("float16", "bfloat16")],
    4: [("gather", "bfloat16"), ("ring", "float16")],
}
STEPS = 4
RATE = 1.5e5
LONG = 28


def chosen(name: str) -> str | Strategy:
    return Ulysses("kv") if name == "slices" else name


def bases(exchange: Distributed) -> dict[str, int]:
    """The checksum of each channel that this rank has an end of."""
    context = exchange._context  # pyright: ignore[reportPrivateUsage]
    ends = {**context._owners, **context._receivers}  # pyright: ignore[reportPrivateUsage]
    return {str(tuple(key)): channel.checksum() for key, channel in ends.items()}


def healthy(rank: int, size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    mail = Peers()
    for name, settings, dtype in CASES[size]:
        seen = Seen()
        exchange = Distributed(chosen(name), SETTINGS[settings], mail=mail, observe=seen)
        outputs = walk(exchange, STEPS, shard=(rank, size), branches=(0, 1), dtype=DTYPES[dtype])
        stats = exchange.stats()
        case = {
            "packets": dict(seen.packets),
            "outputs": digest(outputs),
            "bytes": [stats.sent, stats.whole, stats.overhead],
        }
        exchange.reset()
        seen.packets.clear()
        again = walk(exchange, 2, shard=(rank, size), dtype=DTYPES[dtype], image=1) if name != "slices" else []
        found[f"{name} {settings} {dtype}"] = {**case, "again": digest(again)}
        exchange.reset()
    for strategy, dtype in LONG_CASES[size]:
        exchange = Distributed(strategy, mail=mail)
        walk(exchange, LONG, shard=(rank, size), dtype=DTYPES[dtype])
        found[f"bases {strategy} {dtype}"] = bases(exchange)
    mail.close()
    return found


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    return {size: launch(healthy, size, tmp_path_factory.mktemp(f"ranks{size}")) for size in (2, 3, 4)}


@pytest.mark.parametrize(("size", "case"), [(size, case) for size, cases in CASES.items() for case in cases], ids=str)
def test_processes_do_as_the_simulation_does(size: int, case: tuple[str, str, str], jobs: dict[int, list[Any]]) -> None:
    """T8: packets by SHA, outputs bit for bit, and bytes."""
    name, settings, dtype = case
    seen = Seen()
    exchange = Simulated(size, chosen(name), SETTINGS[settings], observe=seen)
    outputs = walk(exchange, STEPS, branches=(0, 1), dtype=DTYPES[dtype])
    stats = exchange.stats()
    ranks = [each[" ".join(case)] for each in jobs[size]]
    packets = {key: value for each in ranks for key, value in each["packets"].items()}
    assert packets == seen.packets
    assert sum(len(each["packets"]) for each in ranks) == len(packets)
    for rank, each in enumerate(ranks):
        assert each["outputs"] == digest([cut(out, size)[rank] for out in outputs])
        assert each["bytes"] == pytest.approx([stats.sent, stats.whole, stats.overhead], rel=1e-12)
    if name != "slices":
        alone = walk(Simulated(size, name, SETTINGS[settings]), 2, dtype=DTYPES[dtype], image=1)
        for rank, each in enumerate(ranks):
            assert each["again"] == digest([cut(out, size)[rank] for out in alone])


@pytest.mark.parametrize(
    ("size", "strategy", "dtype"), [(size, *case) for size, cases in LONG_CASES.items() for case in cases]
)
def test_all_ends_are_equal_after_many_steps(size: int, strategy: str, dtype: str, jobs: dict[int, list[Any]]) -> None:
    """T6."""
    found = [each[f"bases {strategy} {dtype}"] for each in jobs[size]]
    assert len(found[0]) == LAYERS * size * 2
    assert all(each == found[0] for each in found)


def drifting(rank: int, size: int, folder: Path) -> dict[str, Any]:
    """One rank's base changes by a bit between two evaluations; the next comparison tells."""
    found: dict[str, Any] = {}
    for strategy in ("gather", "ring"):
        exchange = Distributed(strategy, ResidualSettings(checksum_every=2), timeout=10.0)
        walk(exchange, 3, shard=(rank, size))
        if rank == 1:
            ends = exchange._context._receivers  # pyright: ignore[reportPrivateUsage]
            base = ends[next(key for key in ends if key.source == 0 and key.layer == 1 and key.kind == "k")].held
            assert base is not None
            base.view(-1)[3] += 1e-3
        begun = time.monotonic()
        try:
            for step in range(3):
                one(exchange, rank, size, step)
        except LinkFault as fault:
            found[strategy] = {"kind": type(fault).__name__, "text": str(fault), "took": time.monotonic() - begun}
        exchange.close()
    return found


def one(exchange: Distributed, rank: int, size: int, step: int) -> None:
    with exchange.evaluation():
        for layer in range(LAYERS):
            exchange.attend(*(cut(each, size)[rank] for each in tensors(3 + step, layer)), layer=layer)


def test_bases_that_differ_are_found(tmp_path: Path) -> None:
    found = launch(drifting, 3, tmp_path)
    for strategy in ("gather", "ring"):
        assert found[1][strategy]["kind"] == Disagreement.__name__
        assert "layer 1 of rank 0" in found[1][strategy]["text"]
        assert "compute differently" in found[1][strategy]["text"]
        for rank in (0, 2):
            assert "could not go on" in found[rank][strategy]["text"]
            assert found[rank][strategy]["took"] < 5.0


def slow(rank: int, size: int, folder: Path) -> dict[str, Any]:
    """Seconds of an image over an emulated link, for each codec; the link of every rank has the same bandwidth."""
    found: dict[str, Any] = {}
    for strategy in ("gather", "ring"):
        for codec in ("whole", "two_bit", "one_bit"):
            mail = EmulatedPeers(Peers(), constant(8 * RATE))
            exchange = Distributed(strategy, ResidualSettings(codec=codec), mail=mail)
            begun = time.monotonic()
            walk(exchange, STEPS, shard=(rank, size))
            stats = exchange.stats()
            found[f"{strategy} {codec}"] = [time.monotonic() - begun, stats.sent + stats.overhead]
            exchange.close()
    mail = EmulatedPeers(Peers(), constant(8 * RATE), 0.02, timeout=0.05)
    exchange = Distributed("gather", ResidualSettings(codec="whole"), mail=EmulatedPeers(mail, constant(8e3)))
    try:
        walk(exchange, 1, shard=(rank, size))
    except LinkFault as fault:
        found["late"] = str(fault)
    exchange.close()
    return found


def test_a_slow_link_takes_bytes_over_bandwidth(tmp_path: Path) -> None:
    """T12: where the link is far slower than the work, an image takes what its bytes take."""
    for each in launch(slow, 2, tmp_path):
        for strategy in ("gather", "ring"):
            seconds = [each[f"{strategy} {codec}"] for codec in ("whole", "two_bit", "one_bit")]
            assert seconds[0][1] > seconds[1][1] > seconds[2][1]
            for took, sent in seconds:
                assert sent / RATE <= took * 1.02
        assert "beyond the timeout" in each["late"] or "could not go on" in each["late"]
