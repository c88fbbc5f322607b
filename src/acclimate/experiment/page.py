"""The bare page of a report: markup and style, no contents."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["page", "section", "table"]

_STYLE = """
:root { color-scheme: light; --ink: #1f2430; --soft: #5d6470; --line: #e3e5e8; --wash: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.2rem 1.2rem 4rem; max-width: 74rem; background: #fff; color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.12rem; margin: 2.6rem 0 .6rem; padding-top: .7rem; border-top: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1.2rem 0 .3rem; }
nav { margin: 1.2rem 0; font-size: .9rem; columns: 24rem; column-gap: 2rem; }
nav a { display: block; color: inherit; padding: .12rem 0; break-inside: avoid; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
p { max-width: 46rem; margin: .5rem 0; }
.meta, .note { color: var(--soft); font-size: .9rem; }
.verdict { font-size: 1.15rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { padding: .3rem .55rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; }
tbody th { text-align: left; position: sticky; left: 0; background: #fff; }
thead th { vertical-align: bottom; }
.turned thead th span { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: 500; text-align: left; }
td.mean, td.cost { background: var(--wash); }
td.best { color: #11703c; font-weight: 700; }
td.bad { color: #b3261e; }
tr.published th, tr.published td { font-weight: 400; font-style: italic; color: var(--soft); }
th.settings, td.settings { text-align: left; }
td.settings { white-space: normal; min-width: 22rem; color: var(--soft); font-size: .8rem; }
.facts th { font-weight: 500; color: var(--soft); vertical-align: top; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.figure { overflow-x: auto; }
.figure img { display: block; width: 100%; min-width: 40rem; height: auto; }
pre { background: var(--wash); padding: .8rem 1rem; border-radius: 6px; white-space: pre-wrap;
      overflow-wrap: anywhere; }
@media print { body { max-width: none; } h2 { break-after: avoid; } }
"""


def page(title: str, about: str, body: str) -> str:
    """A whole document."""
    told = f'<p class="meta">{escape(about)}</p>' if about else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{told}{body}</body></html>\n"
    )


def section(title: str, contents: str, note: str = "", *, name: str = "") -> str:
    """A heading, its contents, and a line on how to read them; `name` is what links point to."""
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    start = f'<section id="{escape(name)}">' if name else "<section>"
    return f"{start}<h2>{escape(title)}</h2>{contents}{told}</section>\n"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    turned: bool = False,
    facts: bool = False,
    kinds: Sequence[str] = (),
) -> str:
    """A table of cells that are markup already; `turned` writes the headings upwards, `kinds` names the rows' style."""
    kind = ' class="turned"' if turned else ' class="facts"' if facts else ""
    lines = "".join(
        f"<tr{_styled(row)}>{''.join(cells)}</tr>" for row, cells in zip(kinds or [""] * len(rows), rows, strict=True)
    )
    heading = f"<thead><tr>{''.join(map(_heading, head))}</tr></thead>" if head else ""
    return f'<div class="scroll"><table{kind}>{heading}<tbody>{lines}</tbody></table></div>'


def _styled(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""


def _heading(name: str) -> str:
    if not name:
        return "<td></td>"
    return f'<th scope="col"{_styled(name if name == "settings" else "")}><span>{escape(name)}</span></th>'
