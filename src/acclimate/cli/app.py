"""From arguments to a command, and from whatever goes wrong to one line."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import sys
from collections.abc import Generator, Mapping, Sequence
from difflib import get_close_matches
from inspect import cleandoc
from pathlib import Path

import tyro

from acclimate.cli.cells import CELLS
from acclimate.cli.command import Command, Interrupted
from acclimate.cli.compare import Compare
from acclimate.cli.doctor import Doctor
from acclimate.cli.guards import Guards
from acclimate.cli.inspect import Inspect
from acclimate.cli.methods import Methods
from acclimate.cli.report import Report
from acclimate.cli.reproduce import Reproduce
from acclimate.cli.run import Run
from acclimate.cli.segment import Segment
from acclimate.cli.serve import Replay, Serve
from acclimate.cli.stream import ShowStream
from acclimate.cli.train import Train
from acclimate.core.allocator import keep_freed_memory

__all__ = ["COMMANDS", "launch", "parse"]

COMMANDS: dict[str, type[Command]] = {
    "run": Run,
    "compare": Compare,
    "report": Report,
    "methods": Methods,
    "guards": Guards,
    "doctor": Doctor,
    "inspect": Inspect,
    "reproduce": Reproduce,
    "segment": Segment,
    "serve": Serve,
    "serve-replay": Replay,
    "stream": ShowStream,
    "train": Train,
    **CELLS,
}

DESCRIPTION = """Keep a deployed PyTorch model accurate when the world shifts.

A first result in about a minute, with nothing to download:

  acclimate run source bn tent palm --stream digits:continual

Which method for my model, and what will it cost?

  acclimate doctor --model my_model.py:build --weights my_model.safetensors
  acclimate methods

Every command explains itself: acclimate run --help. Mistakes in use end with one line and exit code 2;
--debug shows the whole story. acclimate --version tells the version."""

_BOX = re.compile(r"[╭╮╰╯│├┤─━┃┏┓┗┛•]+|\x1b\[[0-9;]*m|\(default: [^)]*\)")


def parse(args: Sequence[str]) -> Command:
    """The command of an argument list.

    SystemExit after `--help`, and after a mistake, which is told in one line.
    """
    words = 2 if " ".join(args[:2]) in COMMANDS else 1
    name = " ".join(args[:words])
    if name in COMMANDS:
        with _one_line():
            return tyro.cli(COMMANDS[name], prog=f"acclimate {name}", args=list(args[words:]), config=_FLAGS)
    family = {known: command for known, command in COMMANDS.items() if known.startswith(f"{name} ")}
    if name in ("-h", "--help") or (family and args[1:2] in (["-h"], ["--help"])):
        sys.stdout.write(f"{_listed(family)}\n" if family else _overview())
        raise SystemExit(0)
    if family:
        found = f"there is no command {' '.join(args[:2])!r}" if len(args) > 1 else f"{name} needs a second word"
        _complain(f"{found}. The commands are: {', '.join(family)}. See acclimate {name} --help.")
        raise SystemExit(2)
    close = get_close_matches(name, COMMANDS, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    found = f"there is no command {name!r}. {hint}" if name else "name a command. "
    _complain(f"{found}The commands are: {', '.join(COMMANDS)}. See acclimate --help.")
    raise SystemExit(2)


_FLAGS = (tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)


def _overview() -> str:
    """The help of the whole program."""
    return f"usage: acclimate COMMAND ...\n\n{DESCRIPTION}\n\ncommands:\n{_listed(COMMANDS)}\n"


def _listed(commands: Mapping[str, type[Command]]) -> str:
    """Commands and their first sentence, a line each."""
    firsts = {name: cleandoc(command.__doc__ or "").partition("\n\n")[0] for name, command in commands.items()}
    return "\n".join(f"  {name:<15}{' '.join(first.split())}" for name, first in firsts.items())


@contextlib.contextmanager
def _one_line() -> Generator[None]:
    """Turn the boxes of the parser's complaints into one line."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            yield
    except SystemExit:
        lines = [line for line in told.getvalue().splitlines() if not line.lstrip().startswith("╭")]
        words = _BOX.sub(" ", " ".join(lines)).split()
        if words:
            _complain(" ".join(words))
        raise


def launch(args: Sequence[str]) -> int:
    """Parse, execute, and turn the outcome into an exit code."""
    if sys.stdout is None:  # closed by whoever started this
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        code = _launched(args)
        with _told():
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left at exit goes nowhere
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    return code


@contextlib.contextmanager
def _told() -> Generator[None]:
    """SystemExit with 2 where standard output cannot be written, but for a reader that has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _complain(" ".join(str(error).split()))
        raise SystemExit(2) from error


def _launched(args: Sequence[str]) -> int:
    with _told():
        if list(args) == ["--version"]:
            from acclimate import __version__

            sys.stdout.write(f"acclimate {__version__}\n")
            return 0
        command = parse(args)
    try:
        keep_freed_memory()
        command.execute()
    except Interrupted as stop:
        _complain(str(stop))
        return 130
    except KeyboardInterrupt:
        _complain("interrupted.")
        return 130
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if command.debug or _is_ours(error) or (isinstance(error, BrokenPipeError) and _reader_gone()):
            raise
        _complain(" ".join(str(error).split()) or type(error).__name__)
        return 2
    return 0


def _reader_gone() -> bool:
    """Whether nobody reads standard output any more, as after `| head`."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on Windows, no stdout, not a file
        return False


def _is_ours(error: Exception) -> bool:
    """A broken installation or a mistake in this library, which a line would only hide."""
    return isinstance(error, ImportError) and str(error.name or "").startswith("acclimate")


def _complain(text: str) -> None:
    with contextlib.suppress(OSError, AttributeError):  # nobody listens
        sys.stderr.write(f"acclimate: {text}\n")
