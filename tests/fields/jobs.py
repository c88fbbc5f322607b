"""Jobs of several processes over gloo, on one machine."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from acclimate.links.kernel import KernelNetwork

Work = Callable[[int, int, Path], dict[str, Any]]


def enter(work: Work, rank: int, size: int, folder: Path, network: KernelNetwork | None = None) -> None:
    """One process of a job; what its work returns is left in a file."""
    torch.set_num_threads(1)
    if network is not None:
        network.enter(rank)
        os.environ["GLOO_SOCKET_IFNAME"] = network.device
    limit = datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=limit)
    (folder / f"{rank}.json").write_text(json.dumps(work(rank, size, folder)))
    dist.destroy_process_group()


def launch(
    work: Work, size: int, folder: Path, gone: int | None = None, network: KernelNetwork | None = None
) -> list[Any]:
    """What each rank returned; the rank that is to be gone ends with 9, and may leave nothing: None."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=enter, args=(work, rank, size, folder, network)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(280)
        if process.is_alive():
            process.kill()
            process.join()
    assert [process.exitcode for process in processes] == [9 if rank == gone else 0 for rank in range(size)]
    files = [folder / f"{rank}.json" for rank in range(size)]
    return [json.loads(file.read_text()) if file.is_file() else None for file in files]
