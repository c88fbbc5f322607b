"""One training on a virtual clock: real gradients, simulated time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.reproduction.contenders import Contender, Scene
from acclimate.fields.wide_area.reproduction.places import Place
from acclimate.fields.wide_area.workloads.workload import Workload
from acclimate.models.threads import one_thread
from acclimate.wire.simulated import world

__all__ = ["Course", "sgd", "simulate"]


@dataclass(slots=True)
class Course:
    """How a training went.

    Attributes: `seconds` and `iterations` to the target, None where it was not come to; `bits`, sent by one worker till
    then; `stalled`, share of time spent waiting; `curve`, seconds, iterations and score at each look; `settings`,
    seconds, staleness and ratio whenever they changed; `diverged`, whether numbers ceased to be finite.
    """

    seconds: float | None = None
    iterations: int | None = None
    bits: int = 0
    stalled: float = 0.0
    diverged: bool = False
    curve: list[tuple[float, int, float]] = field(default_factory=list[tuple[float, int, float]])
    settings: list[tuple[float, int, float]] = field(default_factory=list[tuple[float, int, float]])


def simulate(
    workload: Workload,
    place: Place,
    contender: Contender,
    base: Callable[[list[Tensor]], Optimizer],
    *,
    seed: int = 0,
    limit: int = 3000,
    seconds: float = float("inf"),
    every: int = 20,
    topology: str = "server",
) -> Course:
    """Train until the target, the limit of iterations or the limit of virtual seconds.

    Arguments: `base`, the optimiser that applies messages; `every`, iterations between looks at the score of the first
    worker's model; `topology`, see `world`.

    All workers' gradients are computed, one worker after the other; their weights are equal to the bit throughout.

    Raises ValueError for a contender that trains by a hook.
    """
    steer = contender.steer
    if steer is None:
        raise ValueError(f"{contender.key} decides nothing; expected a contender with `steer`. See `hooks.train`.")
    models = [workload.build(seed) for _ in range(place.workers)]
    dense_bits = 32.0 * sum(parameter.numel() for parameter in models[0].parameters())
    draws = [workload.batches(rank, place.workers, place.shards, seed) for rank in range(place.workers)]
    epoch = max(1, workload.count // (place.workers * workload.batch_size))
    scene = Scene(place, dense_bits, epoch, seed)
    link = place.link(dense_bits, cheaper=contender.cheaper, seed=seed)
    transports = world(place.workers, [(link, place.latency)], topology=topology)
    trainings = [
        DeCoSGD(
            model.parameters(),
            base,
            transport=transport,
            policy=steer(scene),
            curvature=contender.curvature,
            **contender.options(),
        )
        for model, transport in zip(models, transports, strict=True)
    ]
    found, first = Course(), transports[0]
    with one_thread():
        for iteration in range(1, limit + 1):
            scene.now = first.now()
            squares = 0.0
            try:
                for training, model, draw, transport in zip(trainings, models, draws, transports, strict=True):
                    training.begin()
                    workload.loss(model, draw()).backward()
                    transport.compute(place.compute)
                    if scene.norms is not None and iteration % epoch == 0:
                        squares += sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
                    training.end()
            except ValueError as error:
                if "finite" not in str(error) and "NaN" not in str(error):
                    raise
                found.diverged = True
                break
            if scene.norms is not None and iteration % epoch == 0:
                scene.norms.append((squares / place.workers) ** 0.5)
            _look(found, first.now(), trainings[0].setting)
            if iteration % every == 0:
                score = workload.score(models[0])
                found.curve.append((first.now(), iteration, score))
                if score >= workload.target:
                    found.seconds, found.iterations = first.now(), iteration
                    break
            if first.now() > seconds:
                break
    found.bits = round(first.sent_bits / contender.cheaper)
    found.stalled = first.stalled / max(first.now(), 1e-12)
    return found


def _look(found: Course, now: float, setting: Setting) -> None:
    told = (setting.staleness, setting.ratio)
    if not found.settings or found.settings[-1][1:] != told:
        found.settings.append((now, *told))


def sgd(rate: float, momentum: float = 0.0) -> Callable[[list[Tensor]], Optimizer]:
    """The plain base, or with momentum."""
    return lambda parameters: torch.optim.SGD(parameters, rate, momentum=momentum)
