"""One HTML page on what a model makes of pictures: answers, doubts, masks, codes, scores and problems."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from acclimate.core.storage import atomic_write
from acclimate.experiment.page import page, section, table
from acclimate.fields.cells.desk.answering import Answers, summary, troubles
from acclimate.fields.cells.desk.landscape import landscape
from acclimate.fields.cells.desk.model import CellModel
from acclimate.fields.cells.desk.problems import Failed, by_severity
from acclimate.fields.cells.desk.scoring import Scored, scored
from acclimate.fields.cells.desk.showing import least_certain, masks_drawn, of_each_class

__all__ = ["report_html", "write_report"]

_LISTED = 300


def write_report(
    path: str | Path, found: Sequence[Answers], model: CellModel, about: str = "", failed: Sequence[Failed] = ()
) -> Path:
    """Write the page; readers see the old file or the new one whole."""
    path = Path(path).expanduser()
    atomic_write(path, report_html(found, model, about, failed).encode())
    return path


def report_html(found: Sequence[Answers], model: CellModel, about: str = "", failed: Sequence[Failed] = ()) -> str:
    """The page as text. Arguments: answers of each laboratory, their model, a line on where the page comes from, and
    folders of which nothing could be read."""
    names = ", ".join(each.laboratory.name for each in found)
    parts = [
        section(
            "In short", "".join(f"<p>{escape(line)}</p>" for line in summary(found, model, failed)) + _doubt(model)
        ),
        section("Answers", _counts(found, model), "Unsure cells stand under their likeliest class, too."),
        section("Right and wrong", *_rights(scored(found, model), model)),
        *(section(f"Answered {name}", *shown) for name, shown in of_each_class(found, model).items()),
        section("Least certain", *least_certain(found, model)),
        section("Masks", *masks_drawn(found)),
        section("Where cells lie", *landscape(found, model)),
        section("Problems", _problems(found, failed)),
        section("The model", _origin(model)),
    ]
    return page(f"Cells of {names}", about, "".join(parts))


def _doubt(model: CellModel) -> str:
    return f'<p class="note">{escape(model.promise)} The promise does not reach other laboratories.</p>'


def _counts(found: Sequence[Answers], model: CellModel) -> str:
    head = ["", *model.classes, "all", "unsure", "not readable"]
    rows: list[list[str]] = []
    for each in found:
        counts = np.bincount(each.predicted, minlength=len(model.classes)).tolist()
        numbers = [*counts, len(each.laboratory), int(each.unsure.sum()), len(each.unread)]
        rows.append([f"<th>{escape(each.laboratory.name)}</th>", *_numbers(numbers)])
    return table(head, rows)


def _numbers(numbers: Sequence[int]) -> list[str]:
    return [f"<td>{number or ''}</td>" for number in numbers]


def _rights(found: Scored | None, model: CellModel) -> tuple[str, str]:
    if found is None:
        wanted = ", ".join(model.classes)
        return (
            f"<p>No class is known: no picture lies in a folder with the name of a class ({escape(wanted)}).</p>",
            "",
        )
    low, high = found.macro_f1
    facts = {
        "cells scored": f"{found.cells}",
        "right": str(found.accuracy),
        f"right, of {found.sure.cells} sure ones": str(found.sure),
        "macro-F1": f"{found.scores.macro_f1:.3f} ({low:.3f} to {high:.3f})",
        "balanced accuracy": f"{found.scores.balanced_accuracy:.1%}",
    }
    if found.held_out:
        facts["not among the sure ones"] = (
            f"{found.held_out} cells that the threshold was chosen on, so that few sure answers on them are wrong"
        )
    if found.familiar and found.fresh:
        facts["left out"] = f"{found.familiar} cells that the classifier was fitted on"
    told = "In parentheses: 95 % intervals. Confusion: cells by true class (rows) and answer (columns)."
    if not found.fresh:
        told = f"The classifier was fitted on all of these cells, so that these scores are too good. {told}"
    return _facts(facts) + _confusion(found, model) + _recalls(found, model), told


def _facts(facts: dict[str, str]) -> str:
    rows = [[f"<th>{escape(name)}</th>", f"<td>{escape(value)}</td>"] for name, value in facts.items()]
    return table((), rows, facts=True)


def _confusion(found: Scored, model: CellModel) -> str:
    def cell(row: int, column: int, count: int) -> str:
        kind = "best" if row == column else "bad"
        return f'<td class="{kind}">{count}</td>' if count else "<td></td>"

    rows = [
        [f"<th>{escape(model.classes[row])}</th>", *(cell(row, column, count) for column, count in enumerate(counts))]
        for row, counts in enumerate(found.scores.confusion.tolist())
    ]
    return f"<h3>Confusion</h3>{table(['', *model.classes], rows)}"


def _recalls(found: Scored, model: CellModel) -> str:
    rows = [
        [f"<th>{escape(name)}</th>", f"<td>{share.cells or ''}</td>", f"<td>{escape(str(share))}</td>"]
        for name, share in zip(model.classes, found.recall, strict=True)
    ]
    return f"<h3>Recall of each class</h3>{table(['', 'cells', 'found'], rows)}"


def _problems(found: Sequence[Answers], failed: Sequence[Failed]) -> str:
    told = by_severity(troubles(found, failed))
    if not told:
        return "<p>None: all pictures could be read, and a cell was found in each.</p>"
    rows = [
        [f"<th>{escape(problem.key)}</th>", f"<td>{escape(name)}</td>", f"<td>{escape(problem.what)}</td>"]
        for name, problem in told[:_LISTED]
    ]
    more = f"<p>And {len(told) - _LISTED} more; the CSV of problems beside this page has all.</p>"
    return table(["picture", "laboratory", "what"], rows) + (more if len(told) > _LISTED else "")


def _origin(model: CellModel) -> str:
    plan, taught, held = model.encoder.plan, model.taught, model.taught["held_out"]
    trained = "; ".join(
        f"{each['name']}: {each['cells']} cells, {sum(each['classes'].values())} with a class, {each['masked']} with a "
        "mask"
        for each in taught["laboratories"]
    )
    facts = {
        "trained on": trained,
        "encoder": f"{plan.size}, {'hand-made features' if plan.measured else f'autoencoder {plan.method}'}",
        "classifier": f"{model.classifier.name}, temperature {model.temperature.value:.3f}",
        "held out": f"{held['cells']} labelled cells, {held['right']} of them answered rightly",
        "unsure": model.promise,
    }
    return _facts(facts | ({"notes": "; ".join(taught["notes"])} if taught["notes"] else {}))
