"""`acclimate train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from acclimate.cli.command import Command, Interrupted, option

__all__ = ["Train"]


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a source model and write its weights as a safetensors file.

    acclimate train cifar10-vit

    acclimate train digits-resnet --output digits.safetensors

    acclimate train cifar10-resnet20 --output cifar10.safetensors --data cifar-10-batches-bin

    acclimate train wrn-28-10 --output wrn.safetensors --device cuda

    After each epoch a checkpoint is written next to the output; the same command continues from it.
    """

    recipe: Annotated[str, tyro.conf.Positional, option("RECIPE")]
    """digits-resnet, digits-resnet-gn or digits-vit; cifar10-resnet20, cifar10-resnet20-gn, cifar10-vit, wrn-28-10
    or wrn-16-4; camvid-segmenter; clip-tiny (images and captions) or sight-tiny (images alone), on CIFAR-10;
    digits-dit or cifar10-dit, diffusion transformers."""
    output: Annotated[str | None, option("FILE.safetensors")] = None
    """Where to write the weights; by default where models are looked for that are asked for by name."""
    data: Annotated[str | None, option("DIR")] = None
    """Where the data set is, if it does not come along."""
    epochs: Annotated[int | None, option("N")] = None
    """Instead of the recipe's."""
    seed: Annotated[int, option("N")] = 0
    """Of the initial weights, the order and the augmentation."""
    device: Annotated[str, option("NAME")] = "cpu"
    """Where to train, such as cpu or cuda."""
    full_precision: Annotated[bool, option()] = False
    """Compute in float32 on CUDA, too, instead of bfloat16."""
    threads: Annotated[int | None, option("N")] = None
    """Threads to compute with; torch decides by default."""
    fresh: Annotated[bool, option()] = False
    """Start anew even where there is a checkpoint."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.progress import Bars
        from acclimate.cli.threads import use_threads
        from acclimate.models import train

        chosen = self.recipe
        if self.recipe.endswith("-tiny"):
            from acclimate.fields.vision_language.tiny import TINY

            chosen = TINY.get(self.recipe, chosen)
        if self.recipe.endswith("-dit"):
            from acclimate.fields.diffusion.tiny import DIFFUSION

            chosen = DIFFUSION.get(self.recipe, chosen)
        if self.threads is not None:
            use_threads(self.threads)
        with Bars() as bars:
            try:
                path = train(
                    chosen,
                    output=self.output,
                    data=self.data,
                    epochs=self.epochs,
                    seed=self.seed,
                    progress=bars.training,
                    resume=not self.fresh,
                    device=self.device,
                    amp=False if self.full_precision else None,
                )
            except KeyboardInterrupt as stop:
                raise Interrupted("interrupted; the same command continues after the last whole epoch.") from stop
        console().print(f"weights  {path}", soft_wrap=True)
