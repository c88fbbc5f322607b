"""Pages about methods and guards: what they say of themselves, their settings and presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from inspect import cleandoc

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from acclimate.core.config import Configured, in_brief

__all__ = ["show_about", "show_settings"]

_BROKEN_BY_WIDTH = 85


def show_about(out: Console, what: Configured, summary: str) -> None:
    """Print its name, a line about it and its docstring."""
    out.print(Text(what.name, style="bold"), Text(summary), sep="  ")
    out.print()
    out.print(Padding(Text(_flowing(type(what).__doc__ or "")), (0, 0, 0, 2)))
    out.print()


def show_settings(out: Console, what: Configured, settable: Container[str]) -> None:
    """Print a table of settings, those of which the command line can set are `settable`, and one of presets."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("setting", "default", "on the command line"):
        table.add_column(title, overflow="fold")
    for field in dataclasses.fields(what):
        value = getattr(what, field.name)
        plain = field.name in settable or value is None or isinstance(value, bool | int | float | str)
        shown = in_brief(value) if dataclasses.is_dataclass(value) else getattr(value, "__name__", None) or str(value)
        how = f"--set {what.name}.{field.name}=..." if field.name in settable else "from Python only"
        table.add_row(field.name, shown if plain else shown.partition("(")[0], how)
    out.print(table)
    if type(what).presets:
        out.print()
        out.print(_presets_table(what))


def _flowing(docstring: str) -> str:
    """A docstring without the line breaks that only its source's width asked for."""
    text = last = ""
    for line in cleandoc(docstring).splitlines():
        broken = len(last) > _BROKEN_BY_WIDTH and bool(line.strip())
        text += f" {line}" if broken else f"\n{line}" if text else line
        last = line
    return text


def _presets_table(what: Configured) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("preset", no_wrap=True)
    table.add_column("changes")
    for preset, values in type(what).presets.items():
        changes = ", ".join(f"{key}={value}" for key, value in values.items()) or "nothing: the defaults"
        table.add_row(f"{what.name}:{preset}", changes)
    return table
