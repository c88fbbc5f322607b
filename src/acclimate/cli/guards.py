"""`acclimate guards`."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import getdoc
from typing import Annotated

import tyro

from acclimate.cli.command import Command, option

__all__ = ["Guards"]


@dataclass(frozen=True, kw_only=True)
class Guards(Command):
    """List the guards and what they do, or show the page of one.

    acclimate guards

    acclimate guards default

    A guard decides whether the adapted model or the source answers, and whether a step is kept. Put methods under one
    with acclimate run --guard NAME; join several by +.
    """

    name: Annotated[str | None, tyro.conf.Positional, option("NAME")] = None
    """The guard to show in full."""

    def execute(self) -> None:
        from rich.table import Table
        from rich.text import Text

        from acclimate.cli.console import console
        from acclimate.cli.pages import show_about, show_settings
        from acclimate.core.guard import Chain, guards

        out, known = console(), {name: cls for name, cls in guards.classes().items() if cls is not Chain}
        if self.name is not None:
            guard = guards.build(self.name)
            show_about(out, guard, "a guard")
            show_settings(out, guard, ())
            return
        table = Table(box=None, padding=(0, 2, 1, 0), header_style="bold")
        table.add_column("guard", no_wrap=True)
        table.add_column("what it does", ratio=1)
        for name, cls in known.items():
            table.add_row(Text(name, style="bold"), Text(" ".join((getdoc(cls) or "").partition("\n\n")[0].split())))
        out.print(table)
        out.print("Several joined by + judge together. acclimate guards NAME shows one in full.", style="dim")
