"""The report of a run: one HTML file that needs nothing else, on line or off."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from acclimate.core.storage import atomic_write
from acclimate.experiment.page import page, section, table
from acclimate.experiment.paired import paired_difference
from acclimate.experiment.plots import cost_bars, error_over_time, gain_over_source, heat_map, memory_bars
from acclimate.experiment.plots.style import embedded
from acclimate.experiment.plots.time import MOST_LINES
from acclimate.experiment.results import SOURCE, Results
from acclimate.experiment.rows import Header
from acclimate.experiment.sizes import readable_bytes
from acclimate.experiment.tabulate import columns_of
from acclimate.experiment.verdict import verdict, worst_cell

__all__ = ["report_html", "write_report"]

_NAMED = 6
_NOT_SHOWN = ("seed", "corruption_seed", "format", "domains")


def write_report(results: Results, path: str | Path) -> Path:
    """Write the report; readers see the old file or the new one whole."""
    path = Path(path).expanduser()
    atomic_write(path, report_html(results).encode())
    path.chmod(0o644)
    return path


def report_html(results: Results) -> str:
    """The report as text: verdict, table, figures, worst cell, protocol, environment, how to repeat."""
    header = results.header
    name = header.stream["name"]
    several = f"{len(results.others)} methods" if len(results.others) > _NAMED else ", ".join(results.others)
    body = [
        section("Verdict", f'<p class="verdict">{escape(verdict(results))}</p>{_worst(results)}'),
        section("Error", _results_table(results), _table_note(results)),
        *_composition(results),
        *_figures(results),
        section("What the methods did", _deeds(results)),
        section("Protocol", _protocol(results)),
        section("Environment", _environment(results)),
        section("Repeat it", _repeat(results)),
    ]
    return page(f"{several or 'source'} on {name}", f"{header.model['name']}, {header.created}", "".join(body))


def _shifts(results: Results) -> str:
    return "domain" if results.mixed else "corruption"


def _figure(draw: Callable[[Results], Figure], results: Results, alternative: str) -> str:
    return embedded(draw(results), alternative)


def _figures(results: Results) -> list[str]:
    drawn = [
        section(
            "Error over time",
            _figure(error_over_time, results, "Error of each segment and batch for every method"),
            "Strong lines: error of a segment. Faint lines: error of each batch, as it was answered."
            + (f" Shown are the source and the {MOST_LINES} best methods." if len(results.others) > MOST_LINES else ""),
        ),
        section(
            f"Methods and {_shifts(results)}s",
            _figure(heat_map, results, f"Error of every method under every {_shifts(results)}"),
            "Error in percent; the best of a column is bold.",
        ),
    ]
    if SOURCE in results.methods and results.others:
        drawn.append(
            section(
                "Gain over source",
                _figure(gain_over_source, results, "Gain of every method over the source model"),
                f"A dot is one {_shifts(results)}, the smallest gain by name; the diamond is the mean with its paired "
                "95 % interval over images.",
            )
        )
    drawn.append(
        section(
            "Time",
            _figure(cost_bars, results, "Time of a batch for every method"),
            "Median wall time of the method's own call; passes over the batch as counted.",
        )
    )
    drawn.append(
        section(
            "Memory",
            _figure(memory_bars, results, "Memory of every method beyond the model"),
            "Measured on a batch of this stream: what is kept between batches, the copy that makes each step a "
            "transaction, and the peak of what autograd keeps for the backward pass.",
        )
    )
    return drawn


def _results_table(results: Results) -> str:
    columns = columns_of(results)
    source = {column.name: column.value(results, SOURCE) for column in columns} if SOURCE in results.methods else {}
    lows = {
        column.name: min((v for m in results.methods if (v := column.value(results, m)) is not None), default=None)
        for column in columns
        if column.better == "low"
    }
    head = ["", *(column.name.replace("_", " ") for column in columns)]
    rows: list[list[str]] = []
    for label in results.methods:
        cells = [f"<th>{escape(label)}</th>"]
        for column in columns:
            value = column.value(results, label)
            kind = "bad" if column.harm(value, source.get(column.name)) else ""
            if value is not None and len(results.methods) > 1 and value == lows.get(column.name):
                kind = "best"
            cells.append(f'<td class="{kind} {column.kind}">{escape(column.text(value))}</td>')
        rows.append(cells)
    return table(head, rows, turned=True)


def _table_note(results: Results) -> str:
    means = "The mean is taken over all segments"
    if results.gradual:
        means += ", of every severity; the mean at 5 only over those of full severity"
    if results.mixed:
        means = "Macro is the mean over domains, pooled the error over all answers, worst that of the worst domain"
    if results.mixed and results.forgets:
        means += (
            ". Forgets, in stream: points of accuracy lost, against the source model, on the source samples in the "
            "stream; forgets, held out: on source images held out of it, answered at its end by what was learned"
        )
    if any(record.header.pace is not None for record in results.records):
        means += ". Missed: batches that arrived while the method was busy, and were not learned from"
    if any(results.guard(label) is not None for label in results.methods):
        means += ". Held: answers that the guard gave to the source"
    return (
        f"Percent of answers that were wrong when the batch arrived. {means}. Green is the best of a column, red is "
        "worse than the source. Time is a multiple of the source model's."
    )


def _composition(results: Results) -> list[str]:
    """What a stream in which domains mix is made of."""
    composition = results.composition
    if composition is None or not results.mixed:
        return []
    published = composition.published or (-1,) * len(composition.names)
    head = ["", "images", "share", *(["published"] if composition.published else [])]
    rows = [
        [
            f"<th>{escape(name.replace('_', ' '))}</th>",
            f"<td>{count:,}</td>",
            f"<td>{share:.1%}</td>",
            *([f"<td>{'-' if told < 0 else f'{told:,}'}</td>"] if composition.published else []),
        ]
        for name, count, share, told in zip(
            composition.names, composition.images, composition.shares, published, strict=True
        )
    ]
    return [section("Composition", f"<p>{escape(str(composition))}</p>{table(head, rows)}")]


def _worst(results: Results) -> str:
    cell = worst_cell(results)
    if cell is None:
        return ""
    errors = {label: results.corruption_errors(label)[cell.corruption] for label in (SOURCE, cell.method)}
    words = "Loses most" if cell.gain < 0 else "Gains least"
    return (
        f'<p class="worst"><b>Worst cell.</b> {words} against the source: {escape(cell.method)} on '
        f"{escape(cell.corruption.replace('_', ' '))}, {errors[cell.method]:.1f} % instead of {errors[SOURCE]:.1f} % "
        f"({-cell.gain:+.1f} points).</p>"
    )


def _deeds(results: Results) -> str:
    head = ["", "learned from", "held at source", "state", "against source, points", "settings"]
    rows: list[list[str]] = []
    for label in results.methods:
        gap = "-"
        if SOURCE in results.methods and label != SOURCE:
            gap = str(paired_difference(results, label, SOURCE))
        state = max((row.state_bytes for track in results.tracks(label).values() for row in track.rows), default=0)
        learns = state > 0 or results.average(label, "backwards") > 0
        rows.append(
            [
                f"<th>{escape(label)}</th>",
                f"<td>{results.share(label, 'updated'):.1%} of batches</td>" if learns else "<td>learns nothing</td>",
                f"<td>{results.share(label, 'held'):.1%} of samples</td>",
                f"<td>{readable_bytes(state)}</td>",
                f"<td>{escape(gap)}</td>",
                f'<td class="settings">{escape(_settings(results.config(label)) + _guard(results.guard(label)))}</td>',
            ]
        )
    return table(head, rows)


def _settings(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_word(value)}" for key, value in config.items() if key != "name")


def _guard(config: Mapping[str, Any] | None) -> str:
    return "" if config is None else f"; guard {config['name']}: {_settings(config)}"


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name") or value.get("custom"))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _facts(values: Mapping[str, Any]) -> str:
    cells = [[f"<th>{escape(key.replace('_', ' '))}</th>", f"<td>{escape(_fact(v))}</td>"] for key, v in values.items()]
    return table([], cells, facts=True)


def _fact(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        pairs = all(isinstance(item, (list, tuple)) and len(item) == 2 for item in value) and len(value) > 0
        if pairs:
            return ", ".join(f"{name} {level}" if level else str(name) for name, level in value)
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def _protocol(results: Results) -> str:
    header = results.header
    model = header.model
    fingerprints = {f"fingerprint, seed {seed}": value for seed, value in header.stream["fingerprints"].items()}
    return _facts(
        {
            "stream": header.stream["name"],
            **{key: value for key, value in header.stream["protocol"].items() if key not in _NOT_SHOWN},
            **fingerprints,
            **_source_images(header),
            "source model": f"{model['name']} ({model['class']}, {model['parameters']:,} parameters)",
            "model fingerprint": model["fingerprint"],
            **({} if header.pace is None else {"pace": f"a batch every {header.pace:g} forwards"}),
            "answers": f"from {header.answer} the update on their batch",
            "reset": header.reset,
            "seeds": header.seeds,
        }
    )


def _source_images(header: Header) -> dict[str, str]:
    """What methods were given that measure the source; empty where none does."""
    given = {label: about["source"] for label, about in header.methods.items() if "source" in about}
    if not given:
        return {}
    source = next(iter(given.values()))
    shared = sum(source["in_stream"].values())
    overlap = f", {shared} of them in the stream" if shared else ""
    words = f"{source['images']:,} of {source['available']:,} images of {source['dataset']}, split {source['split']}"
    return {"source images": f"{words}, by seed{overlap}; for {', '.join(given)}"}


def _environment(results: Results) -> str:
    return "".join(
        _facts({"record": record.path.parent.name, "created": record.header.created, **record.header.environment})
        for record in results.records
    )


def _repeat(results: Results) -> str:
    lines = [record.header.command or "(run from Python)" for record in results.records]
    threads = results.header.environment.get("threads")
    return (
        "".join(f"<pre>{escape(line)}</pre>" for line in lines)
        + "<p>With the fingerprints above the stream and the model are the same. Bit for bit the same numbers need "
        f"the same versions, the same kind of machine and --threads {threads}.</p>"
    )
