"""What COSMIC knows at the end of one corruption, in pictures."""

from __future__ import annotations

import torch

from acclimate.experiment.reproduce.part import Drawing
from acclimate.fields.vision_language.entry import adapt
from acclimate.fields.vision_language.features import Features
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.pictures import (
    cache_over_time,
    semantic_graph,
    support_grid,
    supporters,
    watch_cache,
)
from acclimate.streams import open_stream

__all__ = ["drawings"]


def drawings(features: Features, corruption: str, split: str, seed: int) -> list[Drawing]:
    """Both graphs, the cache as it fills, and the images that speak for the likeliest classes of the last one.

    Arguments: `features` as `corruption_features` gives them for this corruption and split.
    """
    method = COSMIC()
    model = adapt(features.model(), method=method, seed=seed)
    batches = list(features.batches(seed=seed, views=min(features.views, method.views)))
    doubts, seen = watch_cache(model, [(batch.images, {"auxiliary": batch.auxiliary}) for batch in batches])
    came = torch.cat([batch.index for batch in batches])
    stream = open_stream(
        "cifar10:continual", split=split, corruptions=(corruption,), size=len(features), batch_size=64, seed=0
    )
    pictures = torch.cat([batch.images for batch in stream])[came]
    with model.frozen():
        last = model(batches[-1].images[-1:], auxiliary=_last(batches[-1].auxiliary))
    clip = torch.cat([batch.images for batch in batches])[:, 0]
    names = features.classes or ()
    likeliest = last[0].topk(min(3, last.shape[1])).indices.tolist()
    grid = support_grid(pictures, supporters(model, clip), names, query=pictures[-1], chosen=likeliest)
    under = f"under {corruption.replace('_', ' ')}"
    return [
        Drawing(
            key="graph-auxiliary",
            figure=semantic_graph(model, space="auxiliary"),
            alternative=f"Classes in the second encoder's space {under}, and the cliques of one of them",
        ),
        Drawing(
            key="graph-clip",
            figure=semantic_graph(model, space="clip"),
            alternative=f"Texts (squares) and images (circles) of the classes in CLIP's space {under}",
        ),
        Drawing(
            key="cache",
            figure=cache_over_time(doubts, seen, names),
            alternative=f"How sure the entries of CLIP's cache are, class by class, as images come {under}",
        ),
        Drawing(
            key="support",
            figure=grid,
            alternative=f"The last image {under}, and the cached images of the classes it is likest to",
        ),
    ]


def _last(rows: torch.Tensor | None) -> torch.Tensor | None:
    return None if rows is None else rows[-1:]
