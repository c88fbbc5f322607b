"""`acclimate serve` and `acclimate serve-replay`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import tyro

from acclimate.cli.command import Command, option

if TYPE_CHECKING:
    from torch import nn

    from acclimate.core.method import Method
    from acclimate.serve.settings import Limits

__all__ = ["Replay", "Serve"]


@dataclass(frozen=True, kw_only=True)
class _Adapting(Command):
    """What a server and a replay of its log have in common."""

    model: Annotated[str, tyro.conf.Positional, option("NAME|module:function|file.py:function")]
    """The model to serve."""
    weights: Annotated[str | None, option("FILE")] = None
    """Weights to load into it."""
    method: Annotated[str, option("METHOD[:PRESET]")] = "tent"
    """How it adapts."""
    set: Annotated[tuple[str, ...], option("METHOD.SETTING=VALUE...")] = ()
    """Other settings of the method than its own."""
    normalization: Annotated[str | None, option("NAME[:PRESET]")] = None
    """Another normalisation than the method's own."""
    guard: Annotated[str, option("NAME|none")] = "default"
    """What holds answers at the source and undoes updates; names joined by + work together."""
    seed: Annotated[int, option("N")] = 0
    """Of the private generators of each stream."""
    threads: Annotated[int, option("N")] = 1
    """Threads that one forward computes with."""

    def _source(self) -> nn.Module:
        from acclimate.cli.choosing import choose_model
        from acclimate.cli.progress import Bars

        with Bars() as bars:
            return choose_model(self.model, self.weights, "", progress=bars.training)[1]

    def _chosen(self) -> Method:
        from acclimate.cli.choosing import choose_methods

        return choose_methods([self.method], self.set, self.normalization)[self.method]


@dataclass(frozen=True, kw_only=True)
class Serve(_Adapting):
    """Serve a model that adapts to each stream of requests, over HTTP.

    acclimate serve my_model.py:build --weights w.safetensors --method tent --state-dir state

    acclimate serve digits-resnet --update inline --token-file token.txt

    Needs pip install "acclimate[serve]". Each stream id has an adaptation of its own over the one model. What a
    stream has learned is kept in --state-dir and taken up again. Verbs that change streams (rollback, reset, freeze)
    are off unless a token is given.
    """

    state_dir: Annotated[str | None, option("DIR")] = None
    """Where versions and audit logs are kept; without it they are gone with the process."""
    host: Annotated[str, option("ADDRESS")] = "127.0.0.1"
    """Address to listen at; others than this machine's own can be reached from outside."""
    port: Annotated[int, option("N")] = 8000
    """Port to listen at; 0 for any that is free."""
    token_file: Annotated[str | None, option("FILE")] = None
    """A file whose first line opens the control verbs, 16 characters or more."""
    update: Annotated[Literal["background", "inline", "off"], option()] = "background"
    """Learn behind the answers, with each answer, or not at all."""
    updater: Annotated[Literal["thread", "process"], option()] = "thread"
    """Where background updates run."""
    update_budget: Annotated[float | None, option("MS")] = None
    """Milliseconds of learning that a batch may cost on average; batches beyond are answered and not learned."""
    workers: Annotated[int, option("N")] = 1
    """Threads that answer."""
    processes: Annotated[int, option("N")] = 1
    """Processes that answer, each for its share of the streams; more than one need --state-dir."""
    batch_window: Annotated[float, option("MS")] = 0.0
    """Milliseconds that a request waits for others of its stream, to share a forward; 0 for none."""
    persist_every: Annotated[int, option("N")] = 10
    """Updates after which a stream is written."""
    persist_seconds: Annotated[float, option("S")] = 5.0
    """Seconds after which a changed stream is written at the latest."""
    max_body: Annotated[int, option("BYTES")] = 32 << 20
    """Largest body of a request."""
    max_rows: Annotated[int, option("N")] = 1024
    """Most rows of a batch."""
    max_streams: Annotated[int, option("N")] = 10_000
    """Most streams at once."""
    stream_queue: Annotated[int, option("N")] = 16
    """Most requests of one stream that wait."""
    queue: Annotated[int, option("N")] = 256
    """Most requests of all streams that wait."""
    kept: Annotated[int, option("N")] = 4
    """Versions of a stream that can be returned to."""
    deadline: Annotated[float, option("S")] = 30.0
    """Seconds from a request to its answer."""
    drain: Annotated[float, option("S")] = 20.0
    """Seconds to finish in, once told to end."""
    limit: Annotated[tuple[str, ...], option("NAME=VALUE...")] = ()
    """Other bounds, by their names in acclimate.serve.settings.Limits, such as state_bytes=1000000."""

    def execute(self) -> None:
        import logging

        from acclimate.cli.console import progress_console
        from acclimate.streams.shared import require

        for module in ("fastapi", "uvicorn", "prometheus_client", "filelock"):
            require(module, "acclimate serve", extra="serve")
        from acclimate.serve.running import serve
        from acclimate.serve.settings import Limits, Settings, is_loopback

        bounds: dict[str, Any] = {
            "body_bytes": self.max_body,
            "rows": self.max_rows,
            "streams": self.max_streams,
            "stream_queue": self.stream_queue,
            "queue": self.queue,
            "kept": self.kept,
            "deadline": self.deadline,
            "drain": self.drain,
        }
        bounds |= _limits(self.limit, Limits)
        settings = Settings(
            method=self._chosen(),
            guard=self.guard,
            seed=self.seed,
            update=self.update,
            updater=self.updater,
            source=(self.model, self.weights),
            update_budget=self.update_budget,
            workers=self.workers,
            threads=self.threads,
            batch_window=self.batch_window,
            state_dir=None if self.state_dir is None else Path(self.state_dir).expanduser(),
            persist_every=self.persist_every,
            persist_seconds=self.persist_seconds,
            token=self._token(),
            limits=Limits(**bounds),
        )
        if not is_loopback(self.host):
            verbs = "control verbs are off" if settings.token is None else "control verbs need the token"
            progress_console().print(
                f"[yellow]{self.host} can be reached from outside: whoever reaches it can ask and teach; {verbs}."
            )
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if self.processes == 1:
            serve(settings, self._source(), host=self.host, port=self.port)
            return
        from acclimate.serve.front import serve_processes

        serve_processes(settings, self.processes, host=self.host, port=self.port)

    def _token(self) -> str | None:
        if self.token_file is None:
            return None
        path = Path(self.token_file).expanduser()
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        if not lines:
            found = "is empty" if path.exists() else "does not exist"
            raise ValueError(
                f"--token-file: {path} {found}, expected a token of 16 characters or more in its first line. Make one: "
                f'python -c "import secrets; print(secrets.token_hex())" > {path}; chmod 600 {path}'
            )
        return lines[0].strip()


def _limits(texts: tuple[str, ...], cls: type[Limits]) -> dict[str, Any]:
    """Bounds from `NAME=VALUE`."""
    hints, found = get_type_hints(cls), dict[str, Any]()
    for text in texts:
        name, _, value = text.partition("=")
        if name not in hints:
            raise ValueError(f"--limit {text}: there is no bound {name!r}. There are: {', '.join(hints)}.")
        try:
            found[name] = hints[name](value)
        except ValueError as error:
            kind = "a whole number" if hints[name] is int else "a number"
            raise ValueError(f"--limit {text}: found {value!r}, expected {kind}.") from error
    return found


@dataclass(frozen=True, kw_only=True)
class Replay(_Adapting):
    """Check a stream of a stopped server: its audit log and the original inputs give the same versions, bit for bit.

    acclimate serve-replay my_model.py:build --weights w.safetensors --stream state/streams/line-3 --inputs kept

    Inputs are files SHA256.safetensors with one tensor, inputs; the hashes are those of the log.
    """

    stream: Annotated[str, option("DIR")]
    """The stream's folder in the state folder."""
    inputs: Annotated[str, option("DIR")]
    """Where the original inputs are."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.threads import use_threads
        from acclimate.serve.replay import input_folder, replay
        from acclimate.serve.settings import Settings

        use_threads(self.threads)
        settings = Settings(method=self._chosen(), guard=self.guard, seed=self.seed, threads=self.threads)
        count = 0
        for step in replay(self._source(), settings, Path(self.stream), input_folder(Path(self.inputs))):
            step.check()
            count += 1
        console().print(f"{count} {'version' if count == 1 else 'versions'}, all as they were.")
