"""What was asked for, and the trials that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from acclimate.core.guard import build_guard
from acclimate.core.method import methods
from acclimate.experiment.reproduce.benchmarks import Benchmark, method_spec
from acclimate.experiment.reproduce.published import MODELS
from acclimate.experiment.reproduce.trial import StreamChoice, Trial
from acclimate.streams.corruptions import EXTRA_CORRUPTIONS

__all__ = ["GUARDING", "MIXING", "MODERN", "PAPER", "Kind", "Request"]

PAPER = ("source", "bn", "tent", "cotta", "ecotta", "adacontrast", "surgical", "dss", "law", "palm")
"""The methods of the paper's table, in its order."""

MODERN = ("palm:default", "eta", "eata", "sar", "rotta", "note", "deyo", "roid", "lame", "t3a", "shot", "memo", "rdumb")
"""What any comparison needs today."""

MIXING = ("continual", "mixed", "correlated", "dynamic", "potpourri+")
"""The streams of the table on mixing domains."""

GUARDING = ("continual", "mixed", "correlated", "sorted", "dynamic", "potpourri+")
"""The streams on which a guard is held to its promise."""

Kind = Literal["continual", "gradual", "validation", "mixed", "correlated", "sorted", "dynamic", "potpourri+", "moving"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The choices that all tables share.

    Arguments:
        benchmark: data set, batch size, presets and published numbers.
        model: the source model's name, and `weights` its fingerprint.
        networks: fingerprints of source models by their names, for tables over several.
        absent: why other source models are not there, by name.
        compute: what changes bits: the device's type and how the model is run there.
        size: images of each corruption, and `gradual_size` of each gradual segment; None for all.
        seeds: of streams and methods; tables show the mean over them.
        methods: instead of the standard ones, as `name` or `name:preset`.
        without: standard methods to leave out.
        batch_size: instead of the benchmark's.
        validation_rounds: how often the four extra corruptions come on a validation stream. Four make it as long as
            the test stream, so that what fails late is seen.
        guard: the one that tables of guards hold to its promise, by name, or names joined by `+`.
    """

    benchmark: Benchmark
    model: str = ""
    weights: str = ""
    networks: Mapping[str, str] = field(default_factory=dict[str, str])
    absent: Mapping[str, str] = field(default_factory=dict[str, str])
    compute: str = "cpu"
    size: int | None = None
    gradual_size: int | None = None
    seeds: tuple[int, ...] = (0,)
    methods: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    batch_size: int | None = None
    validation_rounds: int = 4
    guard: str = "default"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds are {list(self.seeds)}; expected at least one, from 0, each of them once.")
        counts = {"size": self.size, "gradual size": self.gradual_size, "batch size": self.batch}
        for option, value in (counts | {"number of validation rounds": self.validation_rounds}).items():
            if value is not None and value < 1:
                raise ValueError(f"the {option} is {value}; expected 1 or more.")
        for name in (*self.methods, *self.without):
            methods.build(name)
        if build_guard(self.guard) is None:
            raise ValueError("there is no guard to look at; expected its name, such as default.")
        if len(set(self.methods)) != len(self.methods):
            raise ValueError(f"methods are {', '.join(self.methods)}; name each of them once.")

    @property
    def batch(self) -> int:
        return self.benchmark.batch_size if self.batch_size is None else self.batch_size

    @property
    def published(self) -> str:
        """The key of the published numbers; empty where there are none."""
        return "" if self.benchmark.name == "digits" else self.benchmark.published

    def chosen(self, standard: Sequence[str]) -> list[str]:
        """The standard methods that are registered and asked for, in their order."""
        known = methods.classes().keys() - set(self.without)
        return [
            name for name in standard if name.partition(":")[0] in known and (not self.methods or name in self.methods)
        ]

    def ordered(self) -> list[str]:
        """What was asked for: the standard methods in their order, then the others."""
        return [*self.chosen((*PAPER, *MODERN)), *self.others]

    @property
    def others(self) -> list[str]:
        """What was asked for beyond the standard methods."""
        return [name for name in self.methods if name not in (*PAPER, *MODERN)]

    def stream(self, kind: Kind) -> StreamChoice:
        """The stream that tables of this kind are run on."""
        if kind == "validation":
            dataset, split = self.benchmark.validation
            return StreamChoice(
                spec=f"{dataset}:continual",
                split=split,
                corruptions=tuple(EXTRA_CORRUPTIONS) * self.validation_rounds,
                size=self.benchmark.images if self.size is None else self.size,
                batch_size=self.batch,
            )
        size = self.gradual_size if kind == "gradual" else self.size
        return StreamChoice(spec=f"{self.benchmark.dataset}:{kind}", size=size, batch_size=self.batch)

    def trials(self, method: str, kind: Kind = "continual", network: str = "", /, **changes: Any) -> list[Trial]:
        """One method with the benchmark's preset and these changes, under every seed; on another network by name."""
        spec = method if ":" in method else method_spec(method, self.benchmark)
        return [
            Trial(
                method=spec,
                changes=tuple(sorted(changes.items())),
                stream=self.stream(kind),
                seed=seed,
                model=network or self.model,
                weights=self.networks[network] if network else self.weights,
                network="" if network == self.model else network,
                compute=self.compute,
                fit_gate=self.model != self.benchmark.network,
            )
            for seed in self.seeds
        ]

    def protocol(self, kind: Kind = "continual") -> str:
        """One line: model, images, batch, seeds, order, reset policy, versions."""
        stream = self.stream(kind)
        shifts: dict[Kind, str] = {
            "continual": "15 corruptions at severity 5 in the paper's order",
            "gradual": "15 corruptions at the severities 1 2 3 4 5 4 3 2 1, so 135 segments",
            "validation": f"{', '.join(EXTRA_CORRUPTIONS)} at severity 5, {self.validation_rounds} times over",
        }
        images = f"{stream.size or self.benchmark.images:,} images"
        return (
            f"{self.model} ({self.weights[:12]}) on {stream.spec}, {stream.split} split; {shifts[kind]}; {images} a "
            f"segment, the same permutation in each; batch {stream.batch_size}; never reset, shifts not announced; "
            f"answers from before the update; seeds {', '.join(map(str, self.seeds))}; torch "
            f"{torch.__version__}, {self.compute}"
        )

    def elsewhere(self, images: int | None = None) -> str:
        """Where the published numbers come from, plainly."""
        if not self.published:
            return "There are no published numbers for this data set."
        data = {"cifar10-c": "CIFAR-10-C", "cifar100-c": "CIFAR-100-C", "imagenet-c": "ImageNet-C"}[self.published]
        return (
            f"Published: {MODELS[self.published]} on {data}, {images or self.benchmark.images:,} images a corruption, "
            f"batch {self.benchmark.batch_size}, order as here. Where the model, the images or the batch here are "
            "others, compare the order of the methods, not the numbers."
        )
