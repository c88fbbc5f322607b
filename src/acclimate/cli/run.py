"""`acclimate run`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from acclimate.cli.command import Interrupted, option
from acclimate.cli.streaming import Streaming

if TYPE_CHECKING:
    from collections.abc import Mapping

    from acclimate.cli.progress import Bars
    from acclimate.core.method import Method
    from acclimate.experiment import Plan, SourceImages
    from acclimate.streams import Stream

__all__ = ["Run"]

SOURCE = "source"
_NOT_ASKED = ("debug", "out", "resume", "threads")


@dataclass(frozen=True, kw_only=True)
class Run(Streaming):
    """Run methods over a stream; prints a table, writes a record and a report.

    acclimate run source bn tent palm --stream digits:continual

    acclimate run tent rdumb palm:stable --stream cifar10:gradual --seeds 0 1 2

    acclimate run tent --stream folder:photos --model my_model.py:build --weights w.safetensors

    acclimate run palm tent --stream digits:continual --set palm.learning_rate=1e-4 tent.steps=2

    acclimate run --resume runs/NAME

    METHOD is a name or name:preset; `acclimate methods` lists them. The unadapted model always runs along.
    STREAM is DATASET[:DIR][:SETTING]: digits, cifar10, cifar100, cifar10c, cifar100c, imagenetc, folder, potpourri
    or potpourri+; continual (each corruption at full strength), gradual (strength rises and falls), clean, or one in
    which domains mix: mixed, cross-mix, alternating, switching, correlated, sorted, dynamic, random, moving,
    potpourri, potpourri+. Errors are percentages, counted on the answers given as each batch arrives.
    """

    methods: Annotated[tuple[str, ...], tyro.conf.Positional, option("METHOD...")] = ()
    """Methods to run, by name or name:preset."""
    stream: Annotated[str | None, option("SPEC")] = None
    """What arrives, such as digits:continual, cifar10:gradual or folder:DIR:clean."""
    seeds: Annotated[tuple[int, ...], option("SEED...")] = (0,)
    """Repeat the run with each of these seeds, of stream order, corruptions and methods."""
    pace: Annotated[float | None, option("F")] = None
    """Let a batch arrive every so many forwards; batches that come while a method is busy are not learned from."""
    model: Annotated[str | None, option("NAME|module:function|file.py:function")] = None
    """The source model; by default the one that belongs to the data set."""
    weights: Annotated[str | None, option("FILE")] = None
    """Weights to load into it."""
    normalization: Annotated[str | None, option("NAME")] = None
    """How batch norms get their statistics, instead of each method's own choice."""
    guard: Annotated[str | None, option("NAME[+NAME...]")] = None
    """Put each method under this guard, such as default; `acclimate guards` lists them. By default there is none."""
    answer: Annotated[Literal["before", "after"], option()] = "before"
    """Score the answer from before or after the update on the batch."""
    set: Annotated[tuple[str, ...], option("METHOD.SETTING=VALUE")] = ()
    """Change settings of methods; `acclimate methods NAME` lists them."""
    source_images: Annotated[int, option("N")] = 2000
    """How many training images a method gets that measures the source before it adapts."""
    source_data: Annotated[str | None, option("DATASET[:DIR]")] = None
    """Where they come from, if not from the training split of the stream's data set."""
    device: Annotated[str, option("NAME")] = "cpu"
    """Where to compute, such as cpu or cuda."""
    amp: Annotated[bool, option()] = False
    """Compute forwards in bfloat16."""
    channels_last: Annotated[bool, option()] = False
    """Hold the model in the channels-last memory format."""
    compile: Annotated[bool, option()] = False
    """Compile the model."""
    threads: Annotated[int | None, option("N")] = None
    """Threads to compute with; by default as many as pay off, which is measured."""
    out: Annotated[str | None, option("DIR")] = None
    """Folder of this run; runs/TIME by default."""
    resume: Annotated[str | None, option("DIR")] = None
    """Continue an interrupted run with its own options."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.progress import Bars
        from acclimate.cli.tables import show_composition, show_results
        from acclimate.cli.threads import use_threads
        from acclimate.experiment import Results, run
        from acclimate.experiment.report import write_report
        from acclimate.experiment.verdict import verdict

        out = console()
        asked = self._resumed() if self.resume else self
        folder = _folder(self.resume or self.out)
        if asked.threads is not None:
            use_threads(asked.threads)
        with Bars() as bars:
            plan = asked._plan(bars)
            bars.finish()
            try:
                record = run(plan, folder, progress=bars.step, resume=self.resume is not None)
            except KeyboardInterrupt as stop:
                raise Interrupted(_how_to_continue(folder)) from stop
        results = Results.of(record)
        report = write_report(results, folder / "report.html")
        if SOURCE not in asked.methods:
            out.print("source was added: gains are measured against the unadapted model.\n", style="dim")
        composition = results.composition
        if composition is not None and results.mixed:
            show_composition(out, results.header.stream["name"], composition)
        out.print(_fingerprints(results.header.stream["fingerprints"]), style="dim", soft_wrap=True)
        out.print()
        show_results(out, results)
        out.print()
        out.print(verdict(results))
        out.print(f"\nrecord  {record.path}\nreport  {report}", soft_wrap=True)

    def _resumed(self) -> Run:
        from acclimate.experiment import read_record

        names = [field.name for field in dataclasses.fields(self) if field.name not in _NOT_ASKED]
        given = [name for name in names if getattr(self, name) != getattr(Run(), name)]
        if given or self.out:
            raise ValueError(
                f"--resume takes all options from the record, but {', '.join(given) or 'out'} was given too. "
                "Leave it out, or start a new run."
            )
        record = read_record(self.resume or "")
        request = record.header.request
        if not request:
            raise ValueError(
                f"{record.path} was written from Python and can be continued only there, by run(..., resume=True)."
            )
        values: dict[str, Any] = {"threads": self.threads or record.header.environment.get("threads")}
        for name in names:
            if name in request:
                values[name] = tuple(request[name]) if isinstance(request[name], list) else request[name]
        return Run(**values)

    def _request(self) -> dict[str, Any]:
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in _NOT_ASKED
        }

    def _open(self, seed: int) -> Stream:
        return self.opened(self.stream or "", seed)

    def _source(self, chosen: Mapping[str, Method]) -> tuple[SourceImages | None, str]:
        """Images for the methods that ask for them; or why there are none."""
        from acclimate.experiment.source import SourceImages, asks_for_source, training_split
        from acclimate.streams import load_dataset

        asking = [label for label, method in chosen.items() if asks_for_source(method)]
        if self.source_data is not None:
            if not asking:
                raise ValueError("--source-data is for methods that need source images; none of these does.")
            return SourceImages(dataset=load_dataset(self.source_data, "train"), count=self.source_images), ""
        if not asking:
            return None, ""
        try:
            dataset = training_split(self.stream or "", self.data)
        except (ValueError, FileNotFoundError) as error:
            return None, str(error)
        return SourceImages(dataset=dataset, count=self.source_images), ""

    def _plan(self, bars: Bars) -> Plan:
        from acclimate.cli.choosing import choose_methods, choose_model
        from acclimate.cli.threads import choose_threads
        from acclimate.experiment import Plan

        if not self.methods or self.stream is None:
            raise ValueError(
                "run needs methods and a stream, such as: acclimate run tent palm --stream digits:continual. "
                "See acclimate run --help."
            )
        names = self.methods if SOURCE in self.methods else (SOURCE, *self.methods)
        chosen = choose_methods(names, self.set, self.normalization)
        source, no_source = self._source(chosen)
        first = self._open(self.seeds[0] if self.seeds else 0)
        name, model = choose_model(
            self.model,
            self.weights,
            _model_of(self.stream.partition(":")[0]),
            classes=len(first.classes) or None,
            image_shape=first.image_shape,
            progress=bars.training,
        )
        if self.threads is None and self.device == "cpu":
            choose_threads(model, next(iter(first)).images)
        return Plan(
            stream=self._open,
            model=model,
            methods=chosen,
            seeds=self.seeds,
            answer=self.answer,
            device=self.device,
            amp=self.amp,
            channels_last=self.channels_last,
            compile=self.compile,
            name=name,
            command=shlex.join(["acclimate", *sys.argv[1:]]),
            request=self._request(),
            source=source,
            no_source=no_source,
            pace=self.pace,
            guard=self.guard,
        )


def _model_of(dataset: str) -> str:
    """The data set whose usual model a stream takes."""
    return "imagenetc" if dataset in ("potpourri", "potpourri+") else dataset


def _fingerprints(of: Mapping[str, str]) -> str:
    """The beginning of the stream's fingerprint, of each seed's where there are several."""
    if len(of) == 1:
        return f"fingerprint {next(iter(of.values()))[:12]}"
    return "fingerprints " + ", ".join(f"{found[:12]} (seed {seed})" for seed, found in of.items())


def _how_to_continue(folder: Path) -> str:
    if not (folder / "record.jsonl").is_file():
        return "interrupted before the first batch; nothing was written."
    return f"interrupted; the record is readable. Continue with: acclimate run --resume {shlex.quote(str(folder))}"


def _folder(wanted: str | None) -> Path:
    if wanted is not None:
        folder = Path(wanted).expanduser()
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out {wanted} is a file; expected a folder for the record and the report.")
        return folder
    name = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    folder = Path("runs") / name
    number = 2
    while folder.exists():
        folder = Path("runs") / f"{name}-{number}"
        number += 1
    return folder
