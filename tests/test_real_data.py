"""CIFAR-10 with the shared source model: what adaptation is for. Figures are in docs/results.md."""

from __future__ import annotations

import pytest
import torch

import acclimate
from acclimate.models import source_model
from acclimate.streams import open_stream

pytestmark = [pytest.mark.real_data, pytest.mark.usefixtures("shared")]


def errors(methods: tuple[str, ...], **stream) -> dict[str, float]:
    """Online error in % of each method over one pass of the stream."""
    net = source_model("cifar10")
    adapted = {name: acclimate.adapt(net, name) for name in methods}
    wrong, count = dict.fromkeys(methods, 0), 0
    for batch in open_stream("cifar10:continual", **stream):
        count += len(batch.labels)
        for name, model in adapted.items():
            wrong[name] += int((model(batch.images).argmax(1) != batch.labels).sum())
    return {name: 100 * number / count for name, number in wrong.items()}


def test_adapting_beats_doing_nothing():
    """Three corruptions of 400 images: batch statistics win by over ten points, and learning wins a little more."""
    found = errors(("source", "bn", "tent", "palm"), size=400, corruptions=("gaussian_noise", "contrast", "pixelate"))
    assert found["bn"] < found["source"] - 10
    assert found["tent"] < found["bn"] + 1
    assert found["palm"] < found["bn"] + 1


@pytest.mark.slow
def test_the_order_of_methods_on_the_whole_stream():
    """2,000 images per corruption: palm < bn < source, as in docs/results.md."""
    torch.set_num_threads(2)
    found = errors(("source", "bn", "tent", "palm"), size=2000)
    assert found["palm"] < found["tent"] < found["bn"] < found["source"]
