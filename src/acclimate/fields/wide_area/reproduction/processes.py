"""Processes that train by DistributedDataParallel under one of torch's own communication hooks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from acclimate.core.config import one_of
from acclimate.core.storage import atomic_write
from acclimate.fields.wide_area.reproduction.hooks import Job, Trained, written
from acclimate.fields.wide_area.workloads import WORKLOADS
from acclimate.fields.wide_area.workloads.workload import Workload

__all__ = ["HOOKS", "work"]

_LIMIT = timedelta(seconds=300)
_ONE_BUCKET = 1 << 14
_FIRST = 2


@dataclass(eq=False, slots=True)
class _Counted:
    """All ranks, as the hooks see a process group; keeps bits of each all-reduce."""

    group: Any
    sent: list[int]

    def size(self) -> int:
        return self.group.size()

    def allreduce(self, tensors: list[Tensor], options: object) -> object:
        self.sent.append(sum(8 * each.numel() * each.itemsize for each in tensors))
        return self.group.allreduce(tensors, options)

    def rounds(self) -> list[int]:
        """Bits of each round since the last call: what needs nothing of the others goes together."""
        sent, self.sent = self.sent, []
        return sent if len(sent) < 2 else [sum(sent[:-1]), sent[-1]]

    __hash__ = object.__hash__


def _half(model: DistributedDataParallel, group: _Counted, rank: int) -> None:
    model.register_comm_hook(group, fp16_compress_hook)


def _low_rank(model: DistributedDataParallel, group: _Counted, rank: int) -> None:
    # DDP cuts its buckets anew after the first iteration; a gradient of nought has no direction to normalise
    state = PowerSGDState(group, matrix_approximation_rank=rank, start_powerSGD_iter=_FIRST)
    state.orthogonalization_epsilon = 1e-8  # pyright: ignore[reportAttributeAccessIssue]
    model.register_comm_hook(state, powerSGD_hook)


HOOKS: Mapping[str, Callable[[DistributedDataParallel, _Counted, int], None]] = {"fp16": _half, "powersgd": _low_rank}
"""By name: registers the hook with a model, given the group it is to use and the rank of factors."""


def work(rank: int, job: Job, folder: str) -> None:
    """One process of a job; the first leaves what was found in `trained.json`.

    Arguments: `rank`, of this process; `folder`, an empty one that all ranks see.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # PowerSGD waits for an accelerator wherever there is one
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", job.workers)  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=job.workers, timeout=_LIMIT)
    found = _train(rank, job, WORKLOADS[job.workload]())
    if rank == 0:
        atomic_write(Path(folder) / "trained.json", written(found))
    # no barrier and no orderly end: a rank that leaves a barrier first closes what others still read, and threads that
    # PowerSGD's rounds leave behind may abort a process whose group is destroyed
    store.set(f"done {rank}", "")
    store.wait([f"done {each}" for each in range(job.workers)], _LIMIT)
    os._exit(0)


def _train(rank: int, job: Job, workload: Workload) -> Trained:
    one_of(*HOOKS, hook=job.hook)
    # One bucket: gloo has two threads, and a hook keeps one of them while it waits for its second round.
    model = DistributedDataParallel(workload.build(job.seed), bucket_cap_mb=_ONE_BUCKET)
    group = _Counted(dist.group.WORLD, [])
    HOOKS[job.hook](model, group, job.rank)
    parameters: list[Tensor] = list(model.parameters())
    optimizer = workload.base(parameters, job.rate)
    draw = workload.batches(rank, job.workers, job.shards, job.seed)
    found, learned = Trained(), torch.zeros(1)
    for iteration in range(1, job.limit + 1):
        optimizer.zero_grad()
        workload.loss(model, draw()).backward()
        found.rounds.append(group.rounds())
        if not all(bool(each.grad.isfinite().all()) for each in parameters if each.grad is not None):
            found.diverged = True  # gradients are the mean's: every rank stops
            break
        optimizer.step()
        if iteration % job.every == 0:
            if rank == 0:
                score = workload.score(model.module)
                found.scores.append((iteration, score))
                learned.fill_(score >= workload.target)
            dist.broadcast(learned, 0)
            if bool(learned):
                break
    return found
