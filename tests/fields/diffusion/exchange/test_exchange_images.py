"""Ranks never compute different images together without an error, whatever one of them does between two images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from jobs import launch
from torch import Tensor

from acclimate.fields.diffusion.exchange.envelope import PeerFault
from acclimate.fields.diffusion.exchange.farewell import Farewell, compare
from acclimate.fields.diffusion.exchange.real import Distributed
from acclimate.fields.diffusion.exchange.simulated import Simulated
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.wire.faults import Disagreement, LinkFault
from acclimate.wire.peers import Peers

IMAGES, STEPS = 4, 3
Breaks = Callable[[int, int, str], bool]
BREAKS: dict[str, tuple[Breaks, list[str]]] = {
    # what goes wrong on rank 1, at (image, step, place); and what rank 0 sees of images 0 to 3
    "after the last exchange": (lambda image, step, place: (image, step, place) == (0, 2, "inside"), ["ok", "fault"]),
    "between evaluations": (lambda image, step, place: (image, step, place) == (0, 1, "outside"), ["fault", "fault"]),
}
"""Faults of rank 1."""


def drawn(image: int, rank: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(image)
    return [torch.randn(1, 8, 2, 8, generator=generator).chunk(2, 1)[rank] for _ in range(3)]


def images(exchange: Distributed, rank: int, breaks: Breaks) -> list[str]:
    """For each image "ok" or "fault", and the sum of what came out."""
    found: list[str] = []
    for image in range(IMAGES):
        try:
            if image:
                exchange.reset()
            out = torch.empty(0)
            for step in range(STEPS):
                with exchange.evaluation():
                    out = exchange.attend(*drawn(image, rank), layer=0)
                    if rank == 1 and breaks(image, step, "inside"):
                        raise ZeroDivisionError("rank 1 broke")
                if rank == 1 and breaks(image, step, "outside"):
                    raise ZeroDivisionError("rank 1 broke")
            found.append("ok " + sha(out))
        except (LinkFault, ZeroDivisionError):
            found.append("fault")
    return found


def sha(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def work(rank: int, size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (breaks, _) in BREAKS.items():
        exchange = Distributed("gather", ResidualSettings(codec="whole"), timeout=30)
        found[name] = images(exchange, rank, breaks)
        exchange.close()
    exchange = Distributed("gather", timeout=30)
    try:
        exchange.reset(3 + rank)
    except LinkFault as fault:
        found["numbers"] = str(fault)
    exchange.reset(3)
    exchange.close()
    stale, kept = Distributed("stale", timeout=30), list[int]()
    for image in range(3):
        stale.reset()
        mail = stale._mail  # pyright: ignore[reportPrivateUsage]
        assert isinstance(mail, Peers)
        kept.append(len(mail._under_way) + len(mail._abandoned))  # pyright: ignore[reportPrivateUsage]
        for _ in range(STEPS):
            with stale.evaluation():
                stale.attend(*drawn(image, rank), layer=0)
    stale.close()
    found["kept"] = kept
    found["lengths"] = lengths(rank)
    found["absent"] = absent(rank)
    return found


def lengths(rank: int) -> str:
    """Messages whose lengths differ by a multiple of 32749 bytes."""
    keep = (1000.5 + 32749 * (1 - rank)) / (1024 * 128)
    settings = ResidualSettings(codec=f"top_entries:{keep}", warmup=0)
    exchange, x = Distributed("gather", settings, timeout=30), torch.ones(1, 1024, 2, 64)
    try:
        with exchange.evaluation():
            exchange.attend(x, x, x, layer=0)
    except LinkFault as fault:
        return str(fault)
    finally:
        exchange.close()
    return ""


def absent(rank: int) -> str:
    """Rank 1 does not come to where ranks connect; later it does."""
    message = ""
    if rank == 0:
        try:
            Peers(timeout=0.5)
        except LinkFault as fault:
            message = str(fault)
    dist.barrier()
    Peers(timeout=30).close()
    return message


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return launch(work, 2, tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_drawn_without_an_error_is_the_image_it_should_be(name: str, job: list[Any]) -> None:
    _, others = BREAKS[name]
    for image in range(IMAGES):
        plain = Simulated(2, "gather", ResidualSettings(codec="whole"))
        with plain.evaluation():
            whole = [torch.cat(each, 1) for each in zip(*(drawn(image, rank) for rank in range(2)), strict=True)]
            expected = plain.attend(*whole, layer=0).chunk(2, 1)
        for rank in range(2):
            assert job[rank][name][image] in ("fault", "ok " + sha(expected[rank]))
    assert job[1][name][0] == "fault"
    assert job[0][name][0].split()[0] == others[0]
    assert all(each[name][-1].startswith("ok") and each[name][-2].startswith("ok") for each in job)


def test_ranks_that_begin_images_of_different_numbers_raise(job: list[Any]) -> None:
    assert all("following: 3 on rank 0, 4 on rank 1" in each["numbers"] for each in job)


def test_nothing_of_an_image_is_kept(job: list[Any]) -> None:
    assert all(each["kept"] == [0, 0, 0] for each in job)


def test_lengths_that_agree_in_their_tags_end_no_process(job: list[Any]) -> None:
    assert all("settings" in each["lengths"] for each in job)


def test_a_rank_that_does_not_connect_is_named_and_may_come_later(job: list[Any]) -> None:
    assert "ranks [1] did not come within 0.5 s" in job[0]["absent"]


def said(rank: int, **changes: Any) -> Farewell:
    common: dict[str, Any] = {"size": 3, "settings": 7, "image": 2, "evaluations": 28, "failed": "", "following": -1}
    return Farewell(source=rank, **{**common, **changes})


def test_a_farewell_comes_through_its_bytes() -> None:
    one = said(1, failed="ValueError: \u00fc", following=5)
    assert Farewell.read(one.bytes()) == one


def test_the_verdict_follows_from_what_all_said() -> None:
    compare([said(0), said(1), said(2)])
    broken = {"failed": "OSError: full", "evaluations": 3}
    compare([said(rank, **broken) for rank in range(3)])
    with pytest.raises(PeerFault, match=r"rank 1 could not go on \(OSError: full\)"):
        compare([said(0), said(1, **broken), said(2)])
    for name in ("evaluations", "image", "settings", "size", "following"):
        with pytest.raises(Disagreement, match=f"{name}: .*9 on rank 2"):
            compare([said(0), said(1), said(2, **{name: 9})])
