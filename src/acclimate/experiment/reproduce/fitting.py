"""What a method needs to know of a source model that is not the published one, found on training images."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from acclimate import adapt
from acclimate.core.method import Method
from acclimate.experiment.reproduce.equal import holding_as_much
from acclimate.experiment.reproduce.site import Site
from acclimate.experiment.reproduce.trial import Trial
from acclimate.experiment.source import SourceImages, asks_for_source
from acclimate.methods.cotta import gate_threshold
from acclimate.parts.mean_teacher import MeanTeacher
from acclimate.streams import Stream
from acclimate.streams.opening import stream_dataset

__all__ = ["fitted"]

_GATE_IMAGES = 2000


def fitted(trial: Trial, site: Site, model: nn.Module, stream: Stream) -> tuple[Method, dict[str, Any]]:
    """The trial's method, ready for this model, and what was filled in, by name.

    Raises:
        ValueError, FileNotFoundError: there are no training images for a method that needs some; a trial at equal
            bytes of a method whose memory policy keeps no shares.
    """
    method = trial.build()
    if trial.equal_bytes is not None:
        images = next(iter(stream)).images.to(site.device)
        with site.forwards():
            method, share = holding_as_much(method, model, images, trial.equal_bytes, seed=trial.seed)
        return method, {"share": share}
    if asks_for_source(method):
        source = SourceImages(dataset=site.training())
        return source.given(method, trial.seed, stream), {"source": source.protocol({trial.seed: stream})}
    if trial.fit_gate and isinstance(method, MeanTeacher):
        threshold = _gate(method, model, site)
        changes: dict[str, Any] = {"threshold": threshold}
        return dataclasses.replace(method, **changes), {"threshold": threshold}
    return method, {}


@torch.no_grad()
def _gate(method: Method, model: nn.Module, site: Site) -> float:
    """By the authors' recipe, on training images: 5 % quantile of the source's confidence, minus 0.05."""
    dataset = site.training()
    bn = adapt(model, "bn", normalization=method.normalization, guard=None)
    size = min(_GATE_IMAGES, len(dataset))
    batches = stream_dataset(dataset, "clean", size=size)
    return gate_threshold(torch.cat([bn(batch.images.to(site.device)).cpu() for batch in batches]))
