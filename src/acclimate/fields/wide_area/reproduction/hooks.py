"""Torch's own communication hooks: trained by real processes, then laid on the virtual clock."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch.distributed as dist

from acclimate.core.config import one_of, positive, whole
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.reproduction.simulate import Course
from acclimate.fields.wide_area.workloads import SHARDS, WORKLOADS
from acclimate.links.clock import VirtualLink

__all__ = ["Job", "Trained", "lay", "read", "train", "unavailable", "written"]


def unavailable() -> str | None:
    """Why no such training can be run here; None where it can.

    >>> unavailable() is None or "torch" in unavailable()
    True
    """
    if not dist.is_available():
        return "this torch was built without torch.distributed, which its communication hooks need."
    if not dist.is_gloo_available():
        return "this torch was built without gloo, over which its communication hooks are to train."
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A training that no link enters: it is the same at all places with as many workers and the same shards.

    Arguments: `workload`, of `WORKLOADS`; `hook`, "fp16" or "powersgd"; `rate`, the step size; `workers`, 2 or more;
    `shards`, "iid" or "sorted"; `seed`; `limit`, of iterations; `every`, iterations between looks at the score;
    `rank`, of PowerSGD's factors.

    Raises ValueError for an argument out of range.
    """

    workload: str
    hook: str
    rate: float
    workers: int = 4
    shards: str = "iid"
    seed: int = 0
    limit: int = 2500
    every: int = 20
    rank: int = 2

    def __post_init__(self) -> None:
        one_of(*WORKLOADS, workload=self.workload)
        one_of("fp16", "powersgd", hook=self.hook)
        one_of(*SHARDS, shards=self.shards)
        positive(rate=self.rate)
        whole(2, workers=self.workers)
        whole(1, limit=self.limit, every=self.every, rank=self.rank)


@dataclass(slots=True)
class Trained:
    """What a training needs of any link, and what came of it.

    Attributes: `rounds`, for each iteration the bits of one worker in each round, of which one waits for the other;
    `scores`, iterations and score at each look; `diverged`, whether numbers ceased to be finite.
    """

    rounds: list[list[int]] = field(default_factory=list[list[int]])
    scores: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    diverged: bool = False


def written(trained: Trained) -> bytes:
    """As JSON."""
    return json.dumps(asdict(trained)).encode()


def read(path: Path) -> Trained:
    """What was `written` to a file."""
    return Trained(**json.loads(path.read_text(encoding="utf-8")))


def train(job: Job) -> Trained:
    """Train by `DistributedDataParallel` over gloo, a process with one thread for each worker, from the workload's
    weights and batches of the seed, until the target or the limit.

    Bits are those of the tensors that a hook hands to `all_reduce`, without any header. "fp16" sends the gradient in
    half precision, in one round. "powersgd" (Vogels et al. 2019; warm start, error feedback) sends the gradient whole
    in the first two iterations, and then the left factors of all matrices with the tensors that are not compressed,
    and, once their mean is known, the right factors: two rounds. Torch's hook waits between the uncompressed ones and
    the left factors as well, which it need not; that wait is not counted.

    Raises:
        ValueError: no torch.distributed here.
        RuntimeError: a process failed; the message is its traceback.
    """
    reason = unavailable()
    if reason is not None:
        raise ValueError(reason)
    from torch.multiprocessing.spawn import start_processes

    from acclimate.fields.wide_area.reproduction.processes import work

    with TemporaryDirectory() as folder:
        start_processes(work, args=(job, folder), nprocs=job.workers, start_method="spawn")
        return read(Path(folder) / "trained.json")


def lay(trained: Trained, place: Place, *, dense_bits: float, target: float, seed: int = 0) -> Course:
    """When it all would have happened at a place: `now <- now + T`, then `now <- finish(now, bits) + b` for each round.

    Nothing overlaps, since torch's hooks finish an iteration's exchange before the next begins. All workers have the
    same link, which carries each tensor once, as in the simulation of the others; a ring would carry more.

    Arguments: `dense_bits`, of a gradient, which the bandwidth is a multiple of; `target`, the score at which it counts
    as learned; `seed`, of the trace.

    >>> course = lay(Trained([[800], [800]]), Place(dense=8, away=2, compute=0.05), dense_bits=1600.0, target=1.0)
    >>> round(course.stalled, 6), course.bits
    (0.857143, 1600)
    """
    link = VirtualLink(place.link(dense_bits, seed=seed), place.latency)
    found, now, iteration, scores = Course(diverged=trained.diverged), 0.0, 0, dict(trained.scores)
    for iteration, rounds in enumerate(trained.rounds, 1):
        now += place.compute
        for bits in rounds:
            now = link.send(now, bits)
        found.bits += sum(rounds)
        if iteration in scores:
            found.curve.append((now, iteration, scores[iteration]))
            if scores[iteration] >= target:
                found.seconds, found.iterations = now, iteration
                break
    found.stalled = 1 - iteration * place.compute / max(now, 1e-12) if iteration else 0.0
    return found
