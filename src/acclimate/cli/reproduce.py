"""`acclimate reproduce`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from acclimate.cli.applications import APPLICATIONS, FIELD
from acclimate.cli.command import Command, Interrupted, option

if TYPE_CHECKING:
    from acclimate.cli.progress import Bars
    from acclimate.experiment.reproduce import Crew, Request, Site

__all__ = ["Reproduce"]

_QUIET = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""For torch here and in the processes that are started: its profiler tells the error stream of every start."""

_BATCHES = {"mixed": 64, "poisoning": 50}
"""Where it is not the data set's own."""


@dataclass(frozen=True, kw_only=True)
class Reproduce(Command):
    """Run a paper's tables and figures again and write them beside the published numbers.

    acclimate reproduce palm --tables 1 --size 500

    acclimate reproduce palm --seeds 0 1 2 --jobs 4

    acclimate reproduce palm --benchmark cifar10c --data DIR --model wrn-28-10 --weights FILE --device cuda

    acclimate reproduce surgeon --seeds 0 1 2

    acclimate reproduce surgeon --benchmark camvid

    acclimate reproduce mixed --benchmark digits --size 200

    acclimate reproduce guard --benchmark digits --without memo

    acclimate reproduce cosmic --data DIR --model openai/clip-vit-base-patch16

    acclimate reproduce cosmic --features DIR --methods zero-shot tda cosmic

    acclimate reproduce cells --seeds 0 1 2

    acclimate reproduce scaling --tables frappe adult

    acclimate reproduce decosgd --seeds 0 1 2

    acclimate reproduce compactfusion --tables digits-dit cifar10-dit

    Each finished trial (a method on a stream under a seed) is a small file in RUN_DIR/trials and is not run
    again: after Ctrl-C the same command continues, and tables share trials. Tables 1, 2 and 3 are the
    continual one, of whichever data set; `variants` is PALM's code against its paper, `defaults` its default
    beside other methods, both on validation streams. `mixed` runs methods x streams x source models, those of the data
    set as far as they are trained (`acclimate train cifar10-vit`): all methods on the digits, a dozen elsewhere.
    `guard` runs the like under a guard and without, and tells whether any cell ends below the source; `auto` holds that
    method against fixed choices on streams of each kind; `poisoning` runs attacks on a few of them.
    SURGEON's table has error and memory side by side; on camvid, street scenes under weather in rounds, it is another
    command's, and takes few of these options. So is `cosmic`: vision-language models on ImageNet's variants and ten
    data sets across domains, those that are in --data, or as features in --features; without either, small encoders
    (`acclimate train clip-tiny`, `acclimate train sight-tiny`) on CIFAR-10 under corruption. And `cells`: BC-SAM and
    DoRL on blood cells of four laboratories, or of Matek-19 and Acevedo-20 as folders matek and acevedo in --data.
    And `scaling`: recommendation models merged, against larger ones, on the sets of clicks that are in --data.
    And `decosgd`: time to accuracy across slow links on a virtual clock, and replicas that adapt together.
    And `compactfusion`: images of diffusion transformers split over devices, with what they exchange compressed
    (`acclimate train digits-dit`, `acclimate train cifar10-dit`).
    """

    paper: Annotated[
        Literal[
            "palm",
            "surgeon",
            "mixed",
            "guard",
            "auto",
            "poisoning",
            "cosmic",
            "cells",
            "scaling",
            "decosgd",
            "compactfusion",
        ],
        tyro.conf.Positional,
        option("PAPER"),
    ]
    """palm, surgeon, cosmic, cells or scaling; or mixed, streams in which domains mix; or guard, is any method worse
    than doing nothing? or auto, is one setting good enough on all streams? or poisoning, what an attacker's rows do to
    others'."""
    tables: Annotated[tuple[str, ...] | None, option("TABLE...")] = None
    """Tables to make, by default all, and figures: 1 4 5 6 7 8 variants defaults of palm, memory of surgeon, mixed;
    data sets of scaling: adult frappe criteo avazu; of decosgd: digits cifar10 characters replicas ablations
    interaction; models of compactfusion: digits-dit cifar10-dit."""
    figures: Annotated[tuple[str, ...] | None, option("FIGURE...")] = None
    """Figures to make: 2 3 of palm, peak of surgeon."""
    benchmark: Annotated[Literal["cifar10", "cifar10c", "cifar100c", "imagenetc", "digits", "camvid"], option()] = (
        "cifar10"
    )
    """cifar10 makes its corruptions itself; cifar10c, cifar100c and imagenetc are the published files."""
    data: Annotated[str | None, option("DIR")] = None
    """Where the data set is; of cosmic, the folder that data sets lie in side by side."""
    features: Annotated[str | None, option("DIR")] = None
    """Of cosmic, where features of data sets are that need no encoders: imagenet.safetensors, dtd.npz, ..."""
    auxiliary: Annotated[str | None, option("NAME|DIR|none")] = None
    """Of cosmic, the second encoder; DINOv2 with registers, L, by default."""
    descriptions: Annotated[str | None, option("DIR")] = None
    """Of cosmic, where sentences about classes are, such as CuPL's: dtd.json, ..."""
    views: Annotated[int, option("N")] = 16
    """Of cosmic, of each image that is encoded."""
    weights_from: Annotated[str, option("NAME")] = "imagenet"
    """Of cosmic, the data set whose labels choose weights for the row cosmic:transfer."""
    validation_data: Annotated[str | None, option("DIR")] = None
    """Where the data set is that settings are chosen on; --data by default."""
    model: Annotated[str | None, option("NAME|module:function|file.py:function")] = None
    """The source model; by default the one that belongs to the data set. Of cosmic, CLIP: a name on the hub, a folder,
    or open_clip:ARCHITECTURE:WEIGHTS."""
    weights: Annotated[str | None, option("FILE")] = None
    """Weights to load into it."""
    methods: Annotated[tuple[str, ...], option("METHOD...")] = ()
    """Only these in tables of methods, by name or name:preset."""
    without: Annotated[tuple[str, ...], option("METHOD...")] = ()
    """Leave these out, such as memo, which takes 32 views of every single image."""
    size: Annotated[int | None, option("N")] = None
    """Images of each corruption; by default 1000 of cifar10, all of others."""
    gradual_size: Annotated[int | None, option("N")] = None
    """Images of each of the 135 gradual segments; by default 200 of cifar10, 100 of digits, all of others."""
    batch_size: Annotated[int | None, option("N")] = None
    """Images that arrive at once; by default as published, 200 (CIFAR) or 64 (ImageNet-C, and `mixed`); 50 of others in
    `poisoning`."""
    validation_rounds: Annotated[int, option("N")] = 4
    """How often the four extra corruptions come on validation streams; 4 make them as long as the test stream."""
    seeds: Annotated[tuple[int, ...], option("SEED...")] = (0,)
    """Of stream order, corruptions and methods; tables show means. Of scaling two or more, by default 0 1 2 3."""
    guard: Annotated[str, option("NAME[+NAME...]")] = "default"
    """The guard that `guard` and `poisoning` put to the proof."""
    out: Annotated[str | None, option("DIR")] = None
    """Folder of this run; runs/reproduce-PAPER-BENCHMARK by default; runs/reproduce-PAPER of cosmic, cells, scaling."""
    jobs: Annotated[int | None, option("N")] = None
    """Trials at the same time, each in a process; half of the cores by default, all of them for scaling."""
    threads: Annotated[int, option("N")] = 1
    """Threads of each process."""
    device: Annotated[str, option("NAME")] = "cpu"
    """Where to compute, such as cpu or cuda."""
    amp: Annotated[bool, option()] = False
    """Compute forwards in bfloat16."""
    channels_last: Annotated[bool, option()] = False
    """Hold the model in the channels-last memory format."""
    compile: Annotated[bool, option()] = False
    """Compile the model."""
    ray: Annotated[tuple[str, ...] | None, option("[ADDRESS]")] = None
    """Spread the trials over a Ray cluster: at this address, or else one of this machine."""
    write_only: Annotated[bool, option()] = False
    """Run nothing; write the tables of the trials that are finished."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.progress import Bars
        from acclimate.cli.trials import Ticker
        from acclimate.experiment.reproduce import PAPERS, choose_parts, reproduce

        for setting, value in _QUIET.items():
            os.environ.setdefault(setting, value)
        if self.paper != "cosmic":
            given = [
                each.name for each in fields(self) if each.name in FIELD and getattr(self, each.name) != each.default
            ]
            self.refuse(self.paper, given, "They are for: acclimate reproduce cosmic.")
        if (application := APPLICATIONS.get("camvid" if self.benchmark == "camvid" else self.paper)) is not None:
            application(self)
            return
        parts, folder = choose_parts(self.tables, self.figures, paper=self.paper), self._folder()
        with Bars() as bars:
            request, site = self._plan(bars)
        crew = None if self.write_only else self._crew()
        command = shlex.join(["acclimate", *sys.argv[1:]])
        with Ticker() as ticker:
            try:
                markdown, html, failed = reproduce(
                    parts,
                    request,
                    site,
                    folder,
                    crew=crew,
                    title=f"{PAPERS[self.paper].title} on {self.benchmark}",
                    about=f"Written by {command}",
                    progress=ticker.tick,
                )
            except KeyboardInterrupt as stop:
                raise Interrupted(
                    f"interrupted; finished trials are kept in {folder / 'trials'}. The same command continues."
                ) from stop
        out = console()
        for reason in dict.fromkeys(failed.values()):
            keys = ", ".join(key for key, told in failed.items() if told == reason)
            out.print(f"{keys} did not run: {reason}", style="yellow")
        out.print(f"tables  {markdown}\npage    {html}", soft_wrap=True)

    def hand_over(self, reproduce: Callable[..., tuple[Path, Path]], counted: str, kept: str, *options: str) -> None:
        """Call what writes tables and a page of its own into the folder, with these options, under a bar."""
        from acclimate.cli.console import console
        from acclimate.cli.progress import Bar
        from acclimate.cli.threads import use_threads

        use_threads(self.threads)
        with Bar() as bar:
            try:
                markdown, html = reproduce(
                    self._folder(),
                    **{name: getattr(self, name) for name in options},
                    progress=lambda done, total, note: bar.show(counted, done, total, note),
                )
            except KeyboardInterrupt as stop:
                raise Interrupted(f"interrupted; finished {kept} are kept. The same command continues.") from stop
        console().print(f"tables  {markdown}\npage    {html}", soft_wrap=True)

    def takes(self, what: str, *names: str, usual: Sequence[str] = ("size", "seeds", "threads", "device")) -> None:
        """ValueError for options that this has no use for."""
        taken = ("out", *names, *usual)
        known = {"paper", "debug", *taken}
        given = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        self.refuse(what, [name for name in given if name not in known], f"It takes {_options(taken)}.")

    @staticmethod
    def refuse(what: str, names: Sequence[str], hint: str) -> None:
        if names:
            raise ValueError(f"{what} does not take {_options(names)}. {hint}")

    def _folder(self) -> Path:
        name = self.paper if self.paper in APPLICATIONS else f"{self.paper}-{self.benchmark}"
        folder = Path(self.out or f"runs/reproduce-{name}").expanduser()
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out {self.out} is a file; expected a folder for trials and tables.")
        if self.write_only and not (folder / "trials").is_dir():
            raise ValueError(f"there are no trials in {folder} to write tables of. Name the run's folder with --out.")
        return folder

    def _plan(self, bars: Bars) -> tuple[Request, Site]:
        from acclimate.cli.choosing import choose_model
        from acclimate.core.storage import fingerprint
        from acclimate.experiment.reproduce import BENCHMARKS, Request, Site

        if self.threads < 1:
            raise ValueError(f"--threads is {self.threads}; expected 1 or more.")
        benchmark = BENCHMARKS[self.benchmark]
        asked = Request(
            benchmark=benchmark,
            size=benchmark.size if self.size is None else self.size,
            gradual_size=benchmark.gradual_size if self.gradual_size is None else self.gradual_size,
            seeds=self.seeds,
            methods=self.methods,
            without=self.without,
            batch_size=_BATCHES.get(self.paper) if self.batch_size is None else self.batch_size,
            validation_rounds=self.validation_rounds,
            guard=self.guard,
        )
        same = benchmark.dataset == benchmark.validation[0]
        site = Site(
            model=_absolute(self.model) if ".py:" in (self.model or "") else self.model,
            weights=_absolute(self.weights),
            data=_absolute(self.data),
            validation=benchmark.validation,
            validation_data=_absolute(self.validation_data or (self.data if same else None)),
            device=self.device,
            threads=self.threads,
            amp=self.amp,
            channels_last=self.channels_last,
            compile=self.compile,
        )
        site.check()
        first = site.stream(asked.stream("continual"), self.seeds[0])
        name, model = choose_model(
            site.model or benchmark.model,
            site.weights,
            self.benchmark,
            classes=len(first.classes) or None,
            image_shape=first.image_shape,
            progress=bars.training,
        )
        shown = Path(name).name if ".py:" in name else name
        known = replace(asked, model=shown, weights=fingerprint(model), compute=site.compute)
        if self.paper in ("mixed", "guard"):
            known = self._with_family(known, bars)
        return known, replace(site, model=name)

    def _with_family(self, known: Request, bars: Bars) -> Request:
        """The source models of the data set, or the one that was named."""
        from acclimate.core.storage import fingerprint
        from acclimate.models import load_model

        found, absent = {known.model: known.weights}, dict[str, str]()
        for name in () if self.model or self.weights else known.benchmark.family:
            try:
                found[name] = fingerprint(load_model(name, progress=bars.training))
            except FileNotFoundError as error:
                absent[name] = str(error)
        return replace(known, networks=found, absent=absent)

    def at_once(self, usual: int) -> int:
        """How many trials at the same time. ValueError for less than one."""
        jobs = usual if self.jobs is None else self.jobs
        if jobs < 1:
            raise ValueError(f"--jobs is {jobs}; expected 1 or more.")
        return jobs

    def _crew(self) -> Crew:
        from acclimate.experiment.reproduce.schedule import Here, Processes

        jobs = self.at_once(max(1, (os.cpu_count() or 1) // 2))
        if self.ray is not None:
            from acclimate.experiment.reproduce.ray import Ray

            if len(self.ray) > 1:
                raise ValueError(f"--ray takes one address, found {' '.join(self.ray)}.")
            return Ray(self.ray[0] if self.ray else None, jobs)
        return Here() if jobs == 1 else Processes(jobs)


def _options(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _absolute(path: str | None) -> str | None:
    """As other processes find it; a function's name after the colon of a file stays."""
    return None if path is None else str(Path(path).expanduser().absolute())
