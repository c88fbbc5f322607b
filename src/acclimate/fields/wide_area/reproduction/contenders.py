"""Methods that are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from acclimate.fields.wide_area.network.truth import true_conditions
from acclimate.fields.wide_area.policy.accordion import Accordion
from acclimate.fields.wide_area.policy.cocktail import KEPT, RATIO, SUBSET
from acclimate.fields.wide_area.policy.conditions import Setting
from acclimate.fields.wide_area.policy.contraction import wire_ratio
from acclimate.fields.wide_area.policy.controller import Controller
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.policy.fixed import DelayedDense, StaticAtMean
from acclimate.fields.wide_area.policy.guard import Guard
from acclimate.fields.wide_area.replicas.steering import Steering
from acclimate.fields.wide_area.reproduction.places import Place

__all__ = ["CONTENDERS", "MOST_STALE", "Contender", "Scene"]

MOST_STALE = 16
"""Iterations that any of them may be late."""


@dataclass(slots=True)
class Scene:
    """What a contender is told: the place, bits of a dense gradient, iterations of an epoch, the seed; and the virtual
    time and gradient norms as they come."""

    place: Place
    dense_bits: float
    epoch: int
    seed: int
    now: float = 0.0
    norms: list[float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """Arguments: `key`, `title`; `steer`, makes what decides, once for each worker; `cheaper`, by how much fewer bits
    it would send than the packets here have; `curvature`, whether a guard is to estimate it; `options`, makes what else
    `DeCoSGD` is given, once for each worker; `hook`, instead of `steer`, which of torch's communication hooks it trains
    by, in processes of its own."""

    key: str
    title: str
    steer: Callable[[Scene], Steering] | None = None
    cheaper: float = 1.0
    curvature: bool = False
    options: Callable[[], Mapping[str, Any]] = dict
    hook: str | None = None


def _synchronous(scene: Scene) -> Steering:
    return Setting(0, 1.0)


def _top_k(scene: Scene) -> Steering:
    """Top-k with error feedback, no delay, at the ratio that DeCo-SGD takes for the mean link."""
    return Setting(0, _at_mean(scene).ratio)


def _static(scene: Scene) -> Steering:
    return Setting(1, 0.02)


def _at_mean(scene: Scene) -> Setting:
    mean = scene.place.at_mean(scene.dense_bits, scene.seed)
    return StaticAtMean(mean=mean, rule=DeCo(most_stale=MOST_STALE)).decide(mean)


def _dense(scene: Scene) -> Steering:
    return DelayedDense(most_stale=MOST_STALE).decide(scene.place.at_mean(scene.dense_bits, scene.seed))


def _cocktail(scene: Scene) -> Steering:
    return Setting(1, wire_ratio(SUBSET * KEPT))


def _accordion(scene: Scene) -> Steering:
    scene.norms = []
    rule = Accordion()
    return lambda iteration: rule.decide_by(scene.norms or ())


def _deco(scene: Scene) -> Steering:
    return Controller(DeCo(most_stale=MOST_STALE), scene.dense_bits, guard=Guard())


def _tta(scene: Scene) -> Steering:
    return Controller(DeCo(most_stale=MOST_STALE, objective="tta"), scene.dense_bits, guard=Guard())


def _oracle(scene: Scene) -> Steering:
    """The rule on the true bandwidth of the moment, every iteration."""
    rule, place = DeCo(most_stale=MOST_STALE), scene.place
    trace = place.link(scene.dense_bits, seed=scene.seed)

    def decide(iteration: int) -> Setting:
        seen = true_conditions(
            trace, scene.now, compute=place.compute, latency=place.latency, dense_bits=scene.dense_bits
        )
        return rule.decide(seen)

    return decide


CONTENDERS: Mapping[str, Contender] = {
    each.key: each
    for each in (
        Contender(key="dsgd", title="D-SGD", steer=_synchronous),
        Contender(key="top-k", title="error-feedback top-k, no delay", steer=_top_k),
        Contender(key="delayed", title="delayed, dense", steer=_dense),
        Contender(key="static", title="static, staleness 1, 2 %", steer=_static),
        Contender(key="static:mean", title="static, tuned for the mean network", steer=_at_mean),
        Contender(key="accordion", title="Accordion-like", steer=_accordion),
        Contender(key="cocktail", title="CocktailSGD-like", steer=_cocktail, cheaper=wire_ratio(SUBSET * KEPT) / RATIO),
        Contender(key="torch:fp16", title="torch's hook, half precision", hook="fp16"),
        Contender(key="torch:powersgd", title="torch's hook, PowerSGD of rank 2", hook="powersgd"),
        Contender(key="deco", title="DeCo-SGD", steer=_deco),
        Contender(key="deco:guarded", title="DeCo-SGD, staleness capped by curvature", steer=_deco, curvature=True),
        Contender(key="deco:tta", title="DeCo-SGD, time-to-accuracy objective", steer=_tta),
        Contender(key="deco:oracle", title="DeCo-SGD, true bandwidth known", steer=_oracle),
    )
}
"""By key, in the order of the tables. The CocktailSGD-like one sends that method's bits, and keeps as many entries as
it by plain top-k at full precision, which flatters it."""
