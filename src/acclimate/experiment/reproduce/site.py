"""Where a trial is run: model, data and device as this machine has them. None of it changes what a trial is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from acclimate.experiment.compute import Compute
from acclimate.experiment.reproduce.trial import StreamChoice
from acclimate.models import load_model
from acclimate.streams import Dataset, Stream, load_dataset, open_stream

__all__ = ["Site"]


@dataclass(frozen=True, kw_only=True)
class Site(Compute):
    """How to get the model and the streams, in any process of any machine that has the same files, and to compute.

    Arguments, besides those of `Compute`:
        model: of `load_model`.
        weights: a safetensors file, or None for the model's own.
        data: folder of the benchmark's data set, or None for the shared folder.
        validation: data set and split that settings are chosen on; if "train", methods may see images of it.
        validation_data: its folder.
        threads: of torch, in each process.
    """

    model: str | None
    weights: str | None = None
    data: str | None = None
    validation: tuple[str, str] = ("cifar10", "train")
    validation_data: str | None = None
    threads: int = 1

    def source(self, network: str = "") -> nn.Module:
        """The source model, or another one by name, on the device."""
        return self.placed(load_model(network) if network else load_model(self.model or "", self.weights))

    def stream(self, choice: StreamChoice, seed: int) -> Stream:
        """The stream of a trial."""
        return open_stream(
            choice.spec,
            size=choice.size,
            batch_size=choice.batch_size,
            seed=seed,
            corruptions=choice.corruptions or None,
            split=choice.split,
            data=self.validation_data if choice.corruptions else self.data,
        )

    def training(self) -> Dataset:
        """Uncorrupted training images of what the source model was trained on.

        Raises:
            ValueError, FileNotFoundError: there are none here.
        """
        name, split = self.validation
        if split != "train":
            raise ValueError(f"the training images of {name!r} are not at hand; this method needs some of the source.")
        return load_dataset(name, "train", data=self.validation_data)
