"""Training and adapting across slow, changing links: delayed, compressed, error-feedback SGD and its controller."""

from importlib import import_module
from typing import TYPE_CHECKING

from acclimate.fields.wide_area.network.estimator import Estimator
from acclimate.fields.wide_area.policy.accordion import Accordion
from acclimate.fields.wide_area.policy.base import Policy
from acclimate.fields.wide_area.policy.conditions import Conditions, Setting
from acclimate.fields.wide_area.policy.controller import Controller
from acclimate.fields.wide_area.policy.deco import DeCo
from acclimate.fields.wide_area.policy.fixed import DelayedDense, Static, StaticAtMean, Synchronous
from acclimate.fields.wide_area.policy.guard import Guard
from acclimate.fields.wide_area.policy.noise import NOISE
from acclimate.fields.wide_area.policy.period import period
from acclimate.fields.wide_area.replicas.checkpoint import load_checkpoint, save_checkpoint
from acclimate.fields.wide_area.replicas.decosgd import DeCoSGD
from acclimate.fields.wide_area.replicas.fleet import Fleet
from acclimate.fields.wide_area.replicas.hook import DelayedHook
from acclimate.fields.wide_area.wire.entries import Entries
from acclimate.links.kernel import KernelNetwork
from acclimate.links.traces import (
    Trace,
    constant,
    markov,
    recorded,
    sine,
    step_drop,
    uniform,
)
from acclimate.wire.emulated import EmulatedTransport
from acclimate.wire.faults import Disagreement, GarbledPacket, LinkFault, LostPeer
from acclimate.wire.gather import GatherTransport
from acclimate.wire.gloo import GlooTransport
from acclimate.wire.late import LateTransport
from acclimate.wire.simulated import SimulatedTransport, world

if TYPE_CHECKING:
    from acclimate.fields.wide_area.reproduction import reproduce_decosgd

__all__ = [
    "NOISE",
    "Accordion",
    "Conditions",
    "Controller",
    "DeCo",
    "DeCoSGD",
    "DelayedDense",
    "DelayedHook",
    "Disagreement",
    "EmulatedTransport",
    "Entries",
    "Estimator",
    "Fleet",
    "GarbledPacket",
    "GatherTransport",
    "GlooTransport",
    "Guard",
    "KernelNetwork",
    "LateTransport",
    "LinkFault",
    "LostPeer",
    "Policy",
    "Setting",
    "SimulatedTransport",
    "Static",
    "StaticAtMean",
    "Synchronous",
    "Trace",
    "constant",
    "load_checkpoint",
    "markov",
    "period",
    "recorded",
    "reproduce_decosgd",
    "save_checkpoint",
    "sine",
    "step_drop",
    "uniform",
    "world",
]


def __getattr__(name: str) -> object:
    if name != "reproduce_decosgd":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.reproduction").reproduce_decosgd
