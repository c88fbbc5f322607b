"""Where a trial is run: model, data and device as this machine has them. None of it changes what a trial is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from acclimate.experiment.reproduce.trial import StreamChoice
from acclimate.models import load_model
from acclimate.streams import Dataset, DatasetStream, load_dataset, open_stream

__all__ = ["Site"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """How to get the model and the streams, in any process of any machine that has the same files.

    Arguments:
        model: of `load_model`.
        weights: a safetensors file, or None for the model's own.
        data: folder of the benchmark's data set, or None for the shared folder.
        validation: data set and split that settings are chosen on; if "train", methods may see images of it.
        validation_data: its folder.
        device: "cpu", "cuda", ...
        threads: of torch, in each process.
        amp: run the model's forwards in bfloat16.
        channels_last: hold the model in that memory format.
        compile: compile the adapted model with `torch.compile`.
    """

    model: str | None
    weights: str | None = None
    data: str | None = None
    validation: tuple[str, str] = ("cifar10", "train")
    validation_data: str | None = None
    device: str = "cpu"
    threads: int = 1
    amp: bool = False
    channels_last: bool = False
    compile: bool = False

    @property
    def compute(self) -> str:
        """What of all this changes bits."""
        flags = [name for name in ("amp", "channels_last", "compile") if getattr(self, name)]
        return " ".join([torch.device(self.device).type, *flags])

    def check(self) -> None:
        """ValueError unless the device can be used here."""
        try:
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"the device {self.device!r} cannot be used here: {error}. Choose 'cpu'.") from error

    def source(self) -> nn.Module:
        """The source model, on the device."""
        model = load_model(self.model or "", self.weights).to(self.device)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return model

    def stream(self, choice: StreamChoice, seed: int) -> DatasetStream:
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
