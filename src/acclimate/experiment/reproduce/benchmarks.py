"""Where a table is run: streams, batch size, preset and the published counterpart of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acclimate.core.method import methods

__all__ = ["BENCHMARKS", "Benchmark", "method_spec"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One data set of the paper, or what stands in for it.

    Arguments:
        name: as on the command line.
        dataset: of `open_stream`.
        published: the key of the published numbers, and the preset that methods take where they have it.
        batch_size: images at once, part of the protocol.
        continual: the number of its continual table in the paper.
        validation: the data set, and split, that settings are chosen on, under the four extra corruptions.
        model: the source model unless asked otherwise.
        network: the name of the published source model.
        family: source models of other kinds, for tables over several; see `load_model`.
        images: how many images a corruption has in the published protocol.
        size, gradual_size: how many are taken unless asked otherwise; None for all.
    """

    name: str
    dataset: str
    published: str
    batch_size: int
    continual: str
    validation: tuple[str, str]
    model: str | None
    network: str
    images: int
    family: tuple[str, ...] = ()
    size: int | None = None
    gradual_size: int | None = None


BENCHMARKS: Mapping[str, Benchmark] = {
    each.name: each
    for each in (
        Benchmark(
            name="cifar10",
            dataset="cifar10",
            published="cifar10-c",
            batch_size=200,
            continual="1",
            validation=("cifar10", "train"),
            model="cifar10-resnet20",
            network="wrn-28-10",
            images=10_000,
            family=("cifar10-resnet20", "cifar10-vit", "cifar10-resnet20-gn"),
            size=1000,
            gradual_size=200,
        ),
        Benchmark(
            name="cifar10c",
            dataset="cifar10c",
            published="cifar10-c",
            batch_size=200,
            continual="1",
            validation=("cifar10", "train"),
            model="cifar10-resnet20",
            network="wrn-28-10",
            images=10_000,
        ),
        Benchmark(
            name="cifar100c",
            dataset="cifar100c",
            published="cifar100-c",
            batch_size=200,
            continual="2",
            validation=("cifar100", "train"),
            model=None,
            network="resnext-29",
            images=10_000,
        ),
        Benchmark(
            name="imagenetc",
            dataset="imagenetc",
            published="imagenet-c",
            batch_size=64,
            continual="3",
            validation=("imagenetc", "test"),
            model=None,
            network="resnet-50",
            images=5_000,
        ),
        Benchmark(
            name="digits",
            dataset="digits",
            published="cifar10-c",
            batch_size=100,
            continual="1",
            validation=("digits", "train"),
            model="digits-resnet",
            network="",
            images=797,
            family=("digits-resnet", "digits-vit", "digits-resnet-gn"),
            gradual_size=100,
        ),
    )
}
"""By name. `cifar10` makes its corruptions itself; `digits` needs no data and has no published numbers."""


def method_spec(name: str, benchmark: Benchmark) -> str:
    """The method with the benchmark's preset, where it has one: `palm:cifar10-c`, `bn`."""
    presets = methods.classes()[name].presets
    return f"{name}:{benchmark.published}" if benchmark.published in presets else name
