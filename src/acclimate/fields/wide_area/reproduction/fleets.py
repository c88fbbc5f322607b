"""Replicas that adapt at test time: alone, together over a slow link, and together without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import nn

from acclimate.entry import adapt
from acclimate.experiment.reproduce.part import Grid, Line
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.replicas.fleet import Fleet
from acclimate.links.traces import constant
from acclimate.models.loading import load_model
from acclimate.streams import open_stream
from acclimate.wire.simulated import world

__all__ = ["fleet_grid"]

_COMPUTE = 0.05
_LATENCY = 0.1
_SETTINGS: Mapping[str, Setting | None] = {
    "source, not adapted": None,
    "each by itself": None,
    "together, every bit at once": Setting(0, 1.0),
    "together, staleness 3, 30 %": Setting(3, 0.3),
    "together, staleness 3, 10 %": Setting(3, 0.1),
    "together, staleness 3, 2 %": Setting(3, 0.02),
}

Told = Callable[[int, int, str], None]


def fleet_grid(
    *,
    replicas: int = 4,
    size: int = 400,
    batch_size: int = 8,
    normalization: str | None = None,
    seeds: Sequence[int] = (0, 1),
    told: Told | None = None,
) -> Grid:
    """Tent on the digits under corruption: each replica gets its share of every batch of the stream.

    Arguments: `normalization`, another than tent's own, such as "ema", whose statistics are shared like weights.

    The link takes ten computing times for all that is shared. Error is over all replicas; bytes are of one; waiting is
    the share of virtual time.
    """
    net = load_model("digits-resnet")
    lines: list[Line] = []
    for number, (name, setting) in enumerate(_SETTINGS.items()):
        found = [_run(net, name, setting, replicas, size, batch_size, normalization, seed) for seed in seeds]
        error, sent, waiting = (fmean(each[place] for each in found) for place in range(3))
        lines.append(Line("measured", name, [100 * error, f"{sent / 1e3:.1f}", f"{100 * waiting:.0f}"]))
        if told is not None:
            told(number + 1, len(_SETTINGS), f"fleet: {name}")
    told_norm = "" if normalization is None else f", statistics by {normalization}"
    title = f"Tent on digits, {replicas} replicas of batches of {batch_size}{told_norm}"
    return Grid(key=f"fleet-{batch_size}", head=["error, %", "kB sent by one", "waiting, %"], lines=lines, title=title)


def _run(
    net: nn.Module,
    name: str,
    setting: Setting | None,
    replicas: int,
    size: int,
    batch_size: int,
    normalization: str | None,
    seed: int,
) -> tuple[float, float, float]:
    bits = 32.0 * 2 * sum(each.num_features for each in net.modules() if isinstance(each, nn.BatchNorm2d))
    transports = world(replicas, [(constant(bits / (10 * _COMPUTE)), _LATENCY)])
    fleets = [Fleet(transport, setting) if setting else None for transport in transports]
    method = "source" if name.startswith("source") else "tent"
    other: dict[str, Any] = {"normalization": normalization} if normalization is not None and method == "tent" else {}
    models = [adapt(net, method, guard=None, replicas=fleet, seed=seed, **other) for fleet in fleets]
    wrong = seen = 0
    for batch in open_stream("digits:continual", size=size, batch_size=replicas * batch_size, seed=seed):
        for model, transport, images, labels in zip(
            models, transports, batch.images.chunk(replicas), batch.labels.chunk(replicas), strict=True
        ):
            answers: torch.Tensor = model(images)
            transport.compute(_COMPUTE)
            wrong += int((answers.argmax(1) != labels).sum())
            seen += len(labels)
    first = transports[0]
    return wrong / seen, first.sent_bits / 8, first.stalled / max(first.now(), 1e-9)
