"""Tables and figures as files: markdown, JSON, CSV, PNG, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from acclimate.core.storage import atomic_write
from acclimate.experiment.page import page, section, table
from acclimate.experiment.reproduce.part import Grid, Line, Shown

__all__ = ["write_all"]


def write_all(
    folder: Path, title: str, about: str, parts: Sequence[Shown], name: str = "reproduce"
) -> tuple[Path, Path]:
    """Write everything; returns the markdown and the HTML file, named `name`. Readers see old or new ones whole."""
    pictures: dict[str, bytes] = {}
    for shown in parts:
        for drawing in shown.drawings:
            data = io.BytesIO()
            drawing.figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
            pictures[drawing.key] = data.getvalue()
            _write(folder / "figures" / f"{drawing.key}.png", data.getvalue())
        for grid in shown.grids:
            _write(folder / "tables" / f"{grid.key}.csv", _csv(grid).encode())
            _write(folder / "tables" / f"{grid.key}.json", _json(grid, shown).encode())
    markdown, html = folder / f"{name}.md", folder / f"{name}.html"
    _write(markdown, _markdown(title, about, parts).encode())
    sections = "".join(_section(number, shown, pictures) for number, shown in enumerate(parts, 1))
    _write(html, page(title, about, _contents(parts) + sections).encode())
    return markdown, html


def _write(path: Path, data: bytes) -> None:
    atomic_write(path, data)
    path.chmod(0o644)


def _markdown(title: str, about: str, parts: Sequence[Shown]) -> str:
    text = [f"# {title}\n", f"{about}\n"]
    for shown in parts:
        text.append(f"## {shown.title}\n")
        for grid in shown.grids:
            if grid.aside:
                text.append(f"{grid.title}: `tables/{grid.key}.csv`.\n")
                continue
            if grid.title:
                text.append(f"### {grid.title}\n")
            head = "".join(f" {name} |" for name in grid.head)
            rows = [f"| |{head}", f"|---|{'--:|' * len(grid.head)}"]
            for line in grid.lines:
                cells = "".join(f" {_marked(grid, line, column)} |" for column in range(len(grid.head)))
                name = f"*{line.name}*" if line.kind == "published" else line.name
                rows.append(f"| {name} |{cells}")
            text.append("\n".join(rows) + "\n")
        text += [f"![{drawing.alternative}](figures/{drawing.key}.png)\n" for drawing in shown.drawings]
        text += [f"{note}\n" for note in shown.notes]
        text.append(f"Protocol: {shown.protocol}.\n")
    return "\n".join(text)


def _marked(grid: Grid, line: Line, column: int) -> str:
    """A loss stands out where there are no colours."""
    text = grid.text(line, column)
    return f"**{text}**" if grid.bad(line, column) else text


def _csv(grid: Grid) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "kind", *grid.head])
    for line in grid.lines:
        cells = ["" if cell is None or cell != cell else cell for cell in line.cells]
        writer.writerow([line.name, line.kind, *cells])
    return text.getvalue()


def _json(grid: Grid, shown: Shown) -> str:
    rows = [
        {"name": line.name, "kind": line.kind, **dict(zip(grid.head, map(_plain, line.cells), strict=True))}
        for line in grid.lines
    ]
    whole = {
        "title": shown.title,
        "block": grid.title,
        "protocol": shown.protocol,
        "notes": list(shown.notes),
        "rows": rows,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(cell: float | str | None) -> float | str | None:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _contents(parts: Sequence[Shown]) -> str:
    links = "".join(f'<a href="#part-{number}">{escape(shown.title)}</a>' for number, shown in enumerate(parts, 1))
    return f"<nav>{links}</nav>" if len(parts) > 1 else ""


def _section(number: int, shown: Shown, pictures: dict[str, bytes]) -> str:
    body: list[str] = []
    for grid in shown.grids:
        heading = f"<h3>{escape(grid.title)}</h3>" if grid.title else ""
        rows = [[f'<th scope="row">{escape(line.name)}</th>', *_cells(grid, line)] for line in grid.lines]
        kinds = ["published" if line.kind == "published" else "" for line in grid.lines]
        body.append(heading + table(["", *grid.head], rows, kinds=kinds))
    for drawing in shown.drawings:
        code = base64.b64encode(pictures[drawing.key]).decode()
        alternative, width = escape(drawing.alternative), drawing.figure.get_figwidth()
        body.append(
            f'<div class="figure"><img alt="{alternative}" style="max-width: {width:g}in" '
            f'src="data:image/png;base64,{code}"></div><p class="note">{alternative}</p>'
        )
    body += [f'<p class="note">{_text(note)}</p>' for note in shown.notes]
    return section(shown.title, "".join(body), f"Protocol: {shown.protocol}.", name=f"part-{number}")


def _cells(grid: Grid, line: Line) -> list[str]:
    """Marked are losses, and the columns that sum a line up."""
    cells: list[str] = []
    for column, name in enumerate(grid.head):
        kinds = [*(["mean"] if name.startswith("mean") else []), *(["bad"] if grid.bad(line, column) else [])]
        start = f'<td class="{" ".join(kinds)}">' if kinds else "<td>"
        cells.append(f"{start}{escape(grid.text(line, column))}</td>")
    return cells


def _text(note: str) -> str:
    """Markdown's code marks as the page has them."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(note))
