"""Methods under guard in records, tables and reports; records from before there were guards stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acclimate.core.guard import guards
from acclimate.experiment import Results, read_record, run
from acclimate.experiment.report import report_html
from acclimate.experiment.tabulate import columns_of, to_markdown


def held(results: Results) -> dict[str, str]:
    (column,) = [column for column in columns_of(results) if column.name == "held"]
    return {label: column.text(column.value(results, label)) for label in results.methods}


def test_a_guard_is_recorded_and_what_it_held_is_shown(make_plan, tmp_path: Path) -> None:
    """ "betting" holds until 200 scores have come, so here it holds everything."""
    record = run(make_plan(guard="betting"), tmp_path / "guarded")
    about = record.header.methods
    assert about["tent"]["guard"] == about["bn"]["guard"] == guards.build("betting").config()
    assert "guard" not in about["source"]
    results = Results.of(record)
    rows = [row for row in record.rows if row.method != "source"]
    assert all(row.held == row.samples for row in rows)
    assert held(results) == {"source": "-", "bn": "100%", "tent": "100%"}
    assert results.mean_error("tent") == results.mean_error("source")
    page = report_html(results)
    assert "guard betting: " in page and "Held: answers that the guard gave to the source" in page
    forwards = {row.method: row.forwards for row in record.rows if row.samples == 8}
    assert forwards["tent"] == 1 + 4 / 8, "the source's answers to four of eight rows count"


def test_without_a_guard_nothing_is_said_of_one(tiny_record) -> None:
    """The fixture's record is as those from before there were guards."""
    assert all("guard" not in about for about in tiny_record.header.methods.values())
    results = Results.of(tiny_record)
    assert results.guard("tent") is None
    assert "held" not in to_markdown(results) and "guard" not in report_html(results)


def test_guarded_and_unguarded_runs_stand_side_by_side(make_plan, tiny_record, tmp_path: Path) -> None:
    results = Results.of(tiny_record, run(make_plan(guard="rdumb"), tmp_path / "blind"))
    assert set(results.methods) == {"source", "bn", "tent", "bn (blind)", "tent (blind)"}
    assert held(results) == {"source": "-", "bn": "-", "tent": "-", "bn (blind)": "0%", "tent (blind)": "0%"}
    assert results.mean_error("tent") == results.mean_error("tent (blind)"), "shorter than its interval"


def test_a_run_is_resumed_under_its_own_guard(make_plan, tmp_path: Path) -> None:
    record = run(make_plan(guard="sar+default"), tmp_path)
    lines = record.path.read_text().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if json.loads(line)["kind"] == "unit")
    record.path.write_text("".join(lines[:last]))
    with pytest.raises(ValueError, match="methods differ"):
        run(make_plan(guard="sar"), tmp_path, resume=True)
    run(make_plan(guard="sar+default"), tmp_path, resume=True)
    again = [(row.method, row.seed, row.batch, row.wrong, row.held) for row in read_record(tmp_path).rows]
    assert sorted(again) == sorted((row.method, row.seed, row.batch, row.wrong, row.held) for row in record.rows)
    with pytest.raises(ValueError, match="Did you mean default"):
        make_plan(guard="defaut")
