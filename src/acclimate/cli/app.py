"""From arguments to a command, and from whatever goes wrong to one line."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence

import tyro

from acclimate.cli.command import Command, Interrupted
from acclimate.cli.compare import Compare
from acclimate.cli.doctor import Doctor
from acclimate.cli.methods import Methods
from acclimate.cli.report import Report
from acclimate.cli.run import Run
from acclimate.cli.train import Train

__all__ = ["COMMANDS", "launch", "parse"]

COMMANDS: dict[str, type[Command]] = {
    "run": Run,
    "compare": Compare,
    "report": Report,
    "methods": Methods,
    "doctor": Doctor,
    "train": Train,
}

DESCRIPTION = """Keep a deployed PyTorch model accurate when the world shifts.

A first result in about a minute, with nothing to download:

  acclimate run source bn tent palm --stream digits:continual

Which method for my model, and what will it cost?

  acclimate doctor --model my_model.py:build --weights my_model.safetensors
  acclimate methods

Every command explains itself: acclimate run --help. Mistakes in use end with one line and exit code 2;
--debug shows the whole story."""

_BOX = re.compile(r"[╭╮╰╯│├┤─━┃┏┓┗┛]+|\x1b\[[0-9;]*m")


def parse(args: Sequence[str]) -> Command:
    """The command of an argument list. SystemExit after `--help` and after a mistake, which is told in one line."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="acclimate", description=DESCRIPTION, args=list(args),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit:
        words = _BOX.sub(" ", told.getvalue()).split()
        if words:
            _complain(" ".join(words))
        raise


def launch(args: Sequence[str]) -> int:
    """Parse, execute, and turn the outcome into an exit code."""
    if list(args) == ["--version"]:
        from acclimate import __version__

        sys.stdout.write(f"acclimate {__version__}\n")
        return 0
    try:
        command = parse(args)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        command.execute()
    except Interrupted as stop:
        _complain(str(stop))
        return 130
    except KeyboardInterrupt:
        _complain("interrupted.")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (ValueError, OSError, ImportError) as error:
        if command.debug:
            raise
        _complain(" ".join(str(error).split()) or type(error).__name__)
        return 2
    return 0


def _complain(text: str) -> None:
    sys.stderr.write(f"acclimate: {text}\n")
