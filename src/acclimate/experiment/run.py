"""Run methods over a stream and write the record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from acclimate import Adapted, adapt
from acclimate.core.guard import Guard, build_guard
from acclimate.core.method import Method
from acclimate.core.storage import fingerprint
from acclimate.experiment.compute import SWITCHES, Compute
from acclimate.experiment.pace import Pace, check_pace
from acclimate.experiment.record import RECORD, Record, RecordWriter, read_record
from acclimate.experiment.rows import BatchRow, Header
from acclimate.experiment.source import SourceImages, asks_for_source
from acclimate.experiment.unit import Unit
from acclimate.streams import Batch, Stream

__all__ = ["Plan", "Progress", "Step", "run"]


@dataclass(frozen=True, kw_only=True)
class Plan(Compute):
    """What to run.

    Arguments, besides those of `Compute`:
        stream: makes the stream of a seed, such as `lambda seed: open_stream("digits:continual", seed=seed)`.
        model: the source model.
        methods: by the label they have in tables and plots.
        seeds: of the stream and of the methods' private generators.
        answer: score answers from `before` or `after` the update.
        name: of the model, as in the record.
        command: the command line, as in the record.
        request: options that the caller needs to build this plan again.
        source: images for methods that measure the source before they adapt and bring none.
        no_source: what to do about it where there are none, for errors.
        pace: forwards F between the arrivals of two batches, see `Pace`; None where the stream waits for each method.
        guard: of every method, by name, names joined by `+`, or an instance; None lets methods stand by themselves.
    """

    stream: Callable[[int], Stream]
    model: nn.Module
    methods: Mapping[str, Method]
    seeds: tuple[int, ...] = (0,)
    answer: str = "before"
    name: str = ""
    command: str = ""
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    source: SourceImages | None = None
    no_source: str = ""
    pace: float | None = None
    guard: str | Guard | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "guard", build_guard(self.guard))
        if not self.methods:
            raise ValueError("there is no method to run. Name at least one, such as 'tent'.")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {list(self.seeds)}; expected at least one, each of them once.")
        if self.pace is not None:
            check_pace(self.pace)


@dataclass(frozen=True, slots=True)
class Step:
    """Where a run is: `done` of `total` (method, seed, batch) steps, the latter None where it is unknown.

    `error` is that of this method under this seed so far, in percent.
    """

    done: int
    total: int | None
    row: BatchRow
    error: float | None


class Progress(Protocol):
    """Called after each step. What it raises ends the run; the record stays readable and can be resumed."""

    def __call__(self, step: Step, /) -> None: ...


def _adapted(plan: Plan, seed: int, stream: Stream, labels: Iterable[str]) -> dict[str, Adapted]:
    built: dict[str, Adapted] = {}
    for label in labels:
        method = plan.methods[label]
        try:
            given = plan.source.given(method, seed, stream) if plan.source else method
            built[label] = plan.compiled(adapt(plan.model, given, guard=plan.guard, answer=plan.answer, seed=seed))
        except ValueError as error:
            hint = f" {plan.no_source}" if plan.no_source and asks_for_source(method) else ""
            raise ValueError(f"{label} cannot run on this model: {error}{hint}") from error
    return built


def _length(stream: Stream) -> int | None:
    try:
        return len(stream)
    except TypeError:
        return None


def _header(plan: Plan, streams: Mapping[int, Stream]) -> Header:
    stream = streams[plan.seeds[0]]
    model = plan.model
    asking = [label for label, method in plan.methods.items() if plan.source and asks_for_source(method)]
    source = {"source": plan.source.protocol(streams)} if plan.source and asking else {}
    guarded = {"guard": plan.guard.config()} if isinstance(plan.guard, Guard) else {}
    return Header(
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=plan.command,
        request=dict(plan.request),
        stream={
            "name": stream.name,
            "batches": _length(stream),
            "segments": [[segment.name, segment.severity] for segment in stream.segments],
            "domains": [[domain.name, domain.severity] for domain in stream.domains],
            "source": None if stream.source is None else [stream.source.name, stream.source.severity],
            "composition": None if stream.rows() is None else stream.composition().json(),
            "fingerprints": {str(seed): each.fingerprint() for seed, each in streams.items()},
            "protocol": stream.protocol(),
        },
        model={
            "name": plan.name or type(model).__name__,
            "class": type(model).__name__,
            "fingerprint": fingerprint(model),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        },
        methods={
            label: {
                "config": method.config(),
                "cost": {
                    "forwards": method.cost().forwards * method.steps,
                    "backwards": method.cost().backwards * method.steps,
                },
                **(source if label in asking else {}),
                **(guarded if method.name != "source" else {}),
            }
            for label, method in plan.methods.items()
        },
        answer=plan.answer,
        reset="before each batch for episodic methods, never for others",
        seeds=plan.seeds,
        environment=plan.environment(),
        pace=plan.pace,
    )


def _opened(plan: Plan, folder: Path, header: Header, resume: bool) -> tuple[RecordWriter, set[tuple[str, int]]]:
    if not resume:
        return RecordWriter.create(folder / RECORD, header), set()
    record = read_record(folder)
    differences = header.differences(record.header) + _switched(header, record.header)
    if differences:
        raise ValueError(
            f"{record.path} cannot be continued: {', '.join(differences)} differ from what it began with. "
            "Bring back the same data, model and settings, or start a new run."
        )
    writer = RecordWriter.resume(record)
    writer.write("resumed", {"created": header.created, "environment": header.environment})
    return writer, record.finished


def _switched(header: Header, began: Header) -> list[str]:
    """What is computed otherwise than a record began with; before there were switches, all were off."""
    return [name for name in SWITCHES if header.environment[name] != began.environment.get(name, "off")]


def run(plan: Plan, folder: str | Path, *, progress: Progress | None = None, resume: bool = False) -> Record:
    """Run every method under every seed; returns the record, which is in `folder` line by line as it comes.

    Each batch is made once and answered by all methods in turn, each of which has an adapted model of its
    own over the same source. Errors are counted on the answers given when the batch arrives. A (method,
    seed) pair is finished or not: `resume=True` keeps the finished ones and starts the others over.

    Raises:
        ValueError: a method that cannot adapt this model, an occupied folder, or, when resuming, another
            stream, model or setting than the record began with.
    """
    folder = Path(folder).expanduser()
    plan.placed(plan.model)
    streams = {seed: plan.stream(seed) for seed in plan.seeds}
    first = {} if resume else _adapted(plan, plan.seeds[0], streams[plan.seeds[0]], plan.methods)
    writer, finished = _opened(plan, folder, _header(plan, streams), resume)
    length = _length(streams[plan.seeds[0]])
    steps = None if length is None else len(plan.seeds) * len(plan.methods) * length
    done = len(finished) * (length or 0)
    with writer:
        for seed in plan.seeds:
            left = [label for label in plan.methods if (label, seed) not in finished]
            if not left:
                continue
            todo, first = first or _adapted(plan, seed, streams[seed], left), {}
            units = [
                Unit(label, seed, adapted, plan.device, pace=Pace(adapted, plan.pace) if plan.pace else None)
                for label, adapted in todo.items()
            ]
            for row, unit in _rows(plan, units, streams[seed], seed, writer):
                done += 1
                if progress is not None:
                    progress(Step(done, steps, row, unit.error))
            with plan.forwards():
                for unit in units:
                    writer.write("unit", unit.close(streams[seed].held_out()).json())
        writer.write("summary", _summary(folder))
    return read_record(folder)


def _rows(
    plan: Plan, units: list[Unit], stream: Stream, seed: int, writer: RecordWriter
) -> Iterator[tuple[BatchRow, Unit]]:
    """Answer the stream, write each row and hand it on."""
    seen: dict[int, list[int]] = {}
    segment, place = None, 0
    for batch in stream:
        place = place + 1 if batch.segment == segment else 0
        segment = batch.segment
        index = batch.index.tolist()
        if seen.get(place) != index:
            seen[place] = index
            writer.write(
                "images", {"seed": seed, "batch": batch.position, "index": index, **_domains_told(stream, batch)}
            )
        for unit in units:
            with plan.forwards():
                row = unit.answer(batch)
            writer.write("batch", row.json())
            yield row, unit


def _domains_told(stream: Stream, batch: Batch) -> dict[str, list[int]]:
    """Each image's domain, where that is not the segment, and which of them have no label."""
    domains = batch.domains.tolist()
    if all(domain < 0 or stream.domains[domain] == batch.segment for domain in set(domains)):
        return {}
    unscored = (batch.labels < 0).nonzero().flatten().tolist() if batch.labels.ndim == 1 else []
    return {"domains": domains, **({"unscored": unscored} if unscored else {})}


def _summary(folder: Path) -> dict[str, Any]:
    from acclimate.experiment.results import Results

    results = Results.of(read_record(folder))
    return {
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "mean_error": {label: results.mean_error(label) for label in results.methods},
        **({"domains": {label: results.by_domain(label) for label in results.methods}} if results.mixed else {}),
    }
