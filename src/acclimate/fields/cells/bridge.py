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


class CellModel(nn.Module):
    """Images `[N, 3, S, S]` in [0, 1] to logits `[N, C]`.

    What a laboratory has of its own is in batch normalisations with the source's statistics: of colours, of the
    feature map's channels, and of the codes, which feed the classifier. Methods that renew statistics or learn through
    normalisations (bn, tent, palm) adapt these and the segmenter's norms.
    """

    def __init__(self, segmenter: Segmenter, autoencoder: Autoencoder | None, head: nn.Module, width: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.autoencoder = autoencoder
        self.colours = nn.BatchNorm2d(3, affine=False)
        self.channels = nn.BatchNorm2d(segmenter.size.width, affine=False)
        self.codes = nn.BatchNorm1d(width)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        standard = Colours(self.colours.running_mean.new_zeros(()), self.colours.running_var.new_ones(()))  # pyright: ignore[reportOptionalMemberAccess]
        features = self.channels(self.segmenter.features(self.colours(images), standard))
        found = features.mean((2, 3)) if self.autoencoder is None else self.autoencoder(features)
        return self.head(self.codes(found))


def side_codes(encoder: CellEncoder, views: Views) -> Tensor:
    """Codes of each side by itself, `[V N, D]`, side after side: what a model that sees one side is trained on."""
    if encoder.autoencoder is None:
        return views.features.float().mean((3, 4)).flatten(0, 1)
    with torch.no_grad():
        return torch.cat([encoder.autoencoder(side.float()) for side in views.features])


def cell_model(encoder: CellEncoder, laboratory: Laboratory, views: Views, classifier: Classifier) -> CellModel:
    """The model of a laboratory, in evaluation mode.

    Arguments:
        encoder: whose plan has `own` colours.
        laboratory: the source.
        views: what was seen of it, not standardised.
        classifier: "logistic", "neural" or "svm-linear", fitted on `level(side_codes(encoder, views.standard()))`.

    Raises ValueError for a plan without `own`, whose statistics are not a laboratory's, and other classifiers.
    """
    if not encoder.plan.own:
        raise ValueError("the encoder's plan has own=False, expected statistics of the laboratory. Train one with own.")
    head = as_module(classifier, classes=len(laboratory.classes))
    found = side_codes(encoder, views.standard())
    model = CellModel(encoder.segmenter, encoder.autoencoder, head, found.shape[1])
    with torch.no_grad():
        _set(model.codes, found.mean(0), found.var(0, correction=0))
        colours = colours_of(laboratory.images)
        _set(model.colours, colours.mean.flatten(), colours.std.flatten() ** 2)
        channels = [views.features[:, :, place].float() for place in range(views.features.shape[2])]
        means = torch.stack([each.mean() for each in channels])
        _set(model.channels, means, torch.stack([each.var() for each in channels]))
    return model.eval()


def _set(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    norm.eps = 1e-8
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
