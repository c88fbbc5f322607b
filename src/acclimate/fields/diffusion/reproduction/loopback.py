"""Real processes with a slow link between them, timed: what the model of latency says, and what it takes."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from acclimate.core.storage import atomic_write
from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.cost import SHAPES, received_bytes
from acclimate.fields.diffusion.exchange.real import Distributed
from acclimate.fields.diffusion.residual.settings import ResidualSettings
from acclimate.fields.diffusion.tiny import DIFFUSION, load_dit, sample, start_noise
from acclimate.links.traces import constant
from acclimate.wire.emulated_peers import EmulatedPeers
from acclimate.wire.peers import Mail, Peers

__all__ = ["CASES", "Job", "Timed", "loopback"]

CASES = (
    ("gather", "whole"),
    ("ring", "whole"),
    ("ulysses", "whole"),
    ("stale", "whole"),
    ("gather", "two_bit"),
    ("gather", "one_bit"),
    ("ring", "one_bit"),
    ("gather", "low_rank:4"),
)
"""Strategies and codecs."""

_TIMEOUT = 120.0
_REPEATS = 3
_LIMITED = 2
_RANDOM = "digits-dit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Arguments: `model`, of `DIFFUSION`, or None for one of the digits' size with random weights; `devices`,
    processes; `seconds` that everything whole takes on the link of each; `count`, images of a batch; `steps`; `cases`,
    as `CASES`."""

    model: str | None = "digits-dit"
    devices: int = 2
    seconds: float = 8.0
    count: int = 16
    steps: int = 28
    cases: Sequence[tuple[str, str]] = CASES


@dataclass(slots=True)
class Timed:
    """One case.

    Attributes: `free`, s without a limit, the least of three runs; `limited`, s on the slow link, the least of two;
    `sent`, bytes of one device; `overhead`, of headers besides; `bandwidth`, bytes/s.
    """

    strategy: str
    codec: str
    free: float
    limited: float
    sent: float
    overhead: float
    bandwidth: float

    @property
    def predicted(self) -> float:
        """s: what it takes without a limit, and the bytes over the bandwidth."""
        return self.free + (self.sent + self.overhead) / self.bandwidth


def loopback(folder: Path, job: Job, *, told: Callable[[str], None] | None = None) -> list[Timed]:
    """Time every case of a job between processes of this machine; kept in `folder`.

    Each process computes with one thread, so more processes than cores compute one after the other: what a case takes
    without a limit is measured, not derived.
    """
    digest = hashlib.sha256(json.dumps(asdict(job), sort_keys=True).encode()).hexdigest()[:16]
    path = folder / "trials" / f"loopback-{job.devices}-{digest}.json"
    if not path.is_file():
        if told is not None:
            told(f"{job.devices} processes, {len(job.cases)} cases")
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "found.json"
            spawn(_rank, (job, str(Path(place) / "store"), out), nprocs=job.devices)
            atomic_write(path, out.read_bytes())
    return [Timed(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def _rank(rank: int, job: Job, store: str, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=job.devices)
    try:
        found = [_timed(job, strategy, codec) for strategy, codec in job.cases]
        if rank == 0:
            atomic_write(out, json.dumps([asdict(each) for each in found]).encode())
    finally:
        dist.destroy_process_group()


def _timed(job: Job, strategy: str, codec: str) -> Timed:
    model = _model(job.model)
    free = min(_run(job, model, strategy, codec, None)[0] for _ in range(_REPEATS))
    bandwidth = _whole(job) / job.seconds
    limited, sent, overhead = min(_run(job, model, strategy, codec, bandwidth) for _ in range(_LIMITED))
    return Timed(strategy, codec, free, limited, sent, overhead, bandwidth)


def _model(name: str | None) -> nn.Module:
    return DIFFUSION[_RANDOM].build() if name is None else load_dit(name)


def _whole(job: Job) -> int:
    """Bytes of one device where everything is sent whole."""
    shape = SHAPES[job.model or _RANDOM]
    return received_bytes(replace(shape, copies=job.count, steps=job.steps), job.devices)


def _run(job: Job, model: nn.Module, strategy: str, codec: str, bandwidth: float | None) -> tuple[float, float, float]:
    """Seconds, bytes of content and of headers."""
    mail: Mail = Peers(timeout=_TIMEOUT)
    dist.barrier()
    if bandwidth is not None:
        mail = EmulatedPeers(mail, constant(8 * bandwidth), timeout=_TIMEOUT)
    exchange = Distributed(strategy, ResidualSettings(codec=codec), mail=mail)
    labels, noise = torch.arange(job.count) % 10, start_noise(model, job.count)
    with compact(model, exchange=exchange, timeout=_TIMEOUT) as compacted:
        begin = time.monotonic()
        sample(model, labels, noise, steps=job.steps)
        seconds, stats = time.monotonic() - begin, compacted.stats()
    return seconds, stats.sent, stats.overhead
