"""A classifier of cells as an ordinary model: from pixels to logits, and so to be adapted like any other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acclimate.fields.cells.classify.classifiers import Classifier
from acclimate.fields.cells.classify.linear import as_module
from acclimate.fields.cells.data.laboratory import Laboratory
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.views import Views
from acclimate.fields.cells.pipeline import CellEncoder
from acclimate.fields.cells.sam.colours import Colours, colours_of
from acclimate.fields.cells.sam.segmenter import Segmenter

__all__ = ["CellModel", "cell_model", "side_codes"]

_SMALL = 1e-8


class CellModel(nn.Module):
    """Images `[N, 3, S, S]` in [0, 1] to logits `[N, C]`.

    What a laboratory has of its own is in batch normalisations with the source's statistics: of colours, of the
    feature map's channels, and of the codes, which feed the classifier. Methods that renew statistics or learn through
    normalisations (bn, tent, palm) adapt these and the segmenter's norms.

    Where the encoder's plan has `own` statistics, these normalisations are the pipeline's steps. Without, the pipeline
    has no such steps; each then gives back what it takes, its weight and bias being the source's deviation and mean,
    until a method renews the statistics and so brings another laboratory to those of the source.
    """

    def __init__(
        self, segmenter: Segmenter, autoencoder: Autoencoder | None, head: nn.Module, width: int, *, own: bool = True
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.autoencoder = autoencoder
        self.own = own
        self.colours = nn.BatchNorm2d(3, eps=_SMALL, affine=not own)
        self.channels = nn.BatchNorm2d(segmenter.size.width, eps=_SMALL, affine=not own)
        self.codes = nn.BatchNorm1d(width, eps=_SMALL)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        colours = Colours(images.new_zeros(()), images.new_ones(())) if self.own else None
        features = self.channels(self.segmenter.features(self.colours(images), colours))
        found = features.mean((2, 3)) if self.autoencoder is None else self.autoencoder(features)
        return self.head(self.codes(found))


def side_codes(encoder: CellEncoder, views: Views) -> Tensor:
    """Codes of each side by itself, `[V N, D]`, side after side: what a model that sees one side is trained on.
    ValueError for an encoder of hand-made features, which are not made of feature maps."""
    return torch.cat([encoder.plain(side[None]) for side in views.features])


def cell_model(encoder: CellEncoder, laboratory: Laboratory, views: Views, classifier: Classifier) -> CellModel:
    """The model of a laboratory, in evaluation mode.

    Arguments:
        encoder: whose parts it is made of.
        laboratory: the source.
        views: what was seen of it, not standardised.
        classifier: fitted on `level(side_codes(encoder, views.standard()))`, or on `side_codes(encoder, views)` for a
            plan without `own`. One of logistic, neural and svm-linear, which have a form as layers; forest, boosting,
            svm and svm-poly have none.

    Raises ValueError for other classifiers, and for an encoder of hand-made features, which have no gradient.
    """
    own = encoder.plan.own
    head = as_module(classifier, classes=len(laboratory.classes))
    found = side_codes(encoder, views.standard() if own else views)
    model = CellModel(encoder.segmenter, encoder.autoencoder, head, found.shape[1], own=own)
    _set(model.codes, found.mean(0), found.var(0, correction=0), back=not own)
    if own:
        colours = colours_of(laboratory.images)
        _set(model.colours, colours.mean.flatten(), colours.std.flatten() ** 2)
    else:
        _set(model.colours, *_of_pixels(laboratory.images), back=True)
    _set(model.channels, *_of_channels(views.features), back=not own)
    return model.eval()


def _of_channels(features: Tensor) -> tuple[Tensor, Tensor]:
    channels = [features[:, :, place].float() for place in range(features.shape[2])]
    return torch.stack([each.mean() for each in channels]), torch.stack([each.var() for each in channels])


def _of_pixels(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each colour over all pixels: those of a batch, where `colours_of` has means of images'."""
    light = torch.arange(256, dtype=torch.float64) / 255
    shares = torch.stack([images[:, colour].flatten().bincount(minlength=256) for colour in range(3)]).double()
    shares /= shares.sum(1, keepdim=True)
    mean = shares @ light
    return mean, (shares * (light - mean[:, None]).square()).sum(1)


@torch.no_grad()
def _set(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor, *, back: bool = False) -> None:
    """Statistics of the source; with `back`, what they take away is given back."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    if back:
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
