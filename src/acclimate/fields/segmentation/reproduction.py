"""SURGEON's table of segmentation, on CamVid under weather: errors by round, and what backward keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from acclimate import Method, adapt
from acclimate.core.storage import fingerprint
from acclimate.experiment.reproduce.equal import holding_as_much
from acclimate.experiment.reproduce.part import Shown
from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.segmentation.comparison import Comparison, compare
from acclimate.fields.segmentation.lineup import EQUAL, SEVERITY, Row, chosen_rows, confidence_threshold
from acclimate.fields.segmentation.showing import show
from acclimate.fields.segmentation.source import source_segmenter
from acclimate.fields.segmentation.weather import weather_stream
from acclimate.memory.device import profiled
from acclimate.streams.camvid import camvid
from acclimate.streams.rounds import RoundsStream

__all__ = ["reproduce_camvid", "shown_camvid"]

FORMAT = 1
"""Of what a row's file depends on."""

_TITLE = "SURGEON on CamVid under weather"

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is running."""


def reproduce_camvid(
    folder: str | Path,
    *,
    weights: str | Path | None = None,
    data: str | Path | None = None,
    size: int | None = None,
    seeds: Sequence[int] = (0,),
    methods: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Path, Path]:
    """Compare errors and memory on the weather stream over ten rounds, beside the published table; resumable.

    The rows are those of `lineup.ROWS`, with settings chosen on the validation split. Each finished row is one file
    `camvid/<row>-<digest>.json` in the folder, as `Comparison.save` writes it, and is not run again; a row that cannot
    be run is told in the page. Static pruning keeps one share of every layer's input, such that it holds as many bytes
    as SURGEON; CoTTA's gate is fitted to the source model on training images.

    Arguments:
        folder: for finished rows, tables, figures and pages.
        weights: of the source segmenter; see `source_segmenter`.
        data: where the archives of CamVid are; the shared folder by default.
        size: scenes of each weather, evenly spaced; all 233 by default.
        seeds: of weather and methods; the table has means.
        methods: labels of rows, all by default.
        device: where to compute.
        progress: called after each batch with batches done and in all, those of finished rows included, and the row.

    Returns: the paths of the Markdown and the HTML page.

    Raises:
        ValueError: an unknown row, no seeds, or a size that does not exist.
        FileNotFoundError: CamVid or the weights are not there.

    Cost: about a minute for each row, ten scenes and 2 GHz core with the small segmenter.
    """
    folder, rows = Path(folder).expanduser(), chosen_rows(methods)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds are {list(seeds)}; expected at least one, each of them once.")
    run = _Run(folder, weights=weights, data=data, size=size, device=device, progress=progress)
    run.total = len(rows) * sum(len(run.stream(seed)) for seed in seeds)
    found: dict[str, list[Comparison]] = {}
    failed: dict[str, str] = {}
    for label, row in rows.items():
        try:
            found[label] = [
                run.row(label, row, seed, earlier=number * len(run.stream(seed))) for number, seed in enumerate(seeds)
            ]
        except ValueError as reason:
            failed[label] = str(reason)
        run.done += sum(len(run.stream(seed)) for seed in seeds)
    about = f"Written by acclimate.fields.segmentation.reproduce_camvid; source model {run.digest[:12]}."
    return write_all(folder, _TITLE, about, [shown_camvid(rows, found, failed, seeds)])


def shown_camvid(
    rows: Mapping[str, Row],
    found: Mapping[str, Sequence[Comparison]],
    failed: Mapping[str, str],
    seeds: Sequence[int] = (0,),
) -> Shown:
    """The table and the figure of rows that are finished under all of these seeds."""
    whole = {label: found[label] for label in rows if len(found.get(label, ())) == len(seeds)}
    return show({label: (rows[label].group, comparisons) for label, comparisons in whole.items()}, failed, seeds)


class _Run:
    """Model, streams and what is finished."""

    def __init__(
        self,
        folder: Path,
        *,
        weights: str | Path | None,
        data: str | Path | None,
        size: int | None,
        device: str,
        progress: Progress | None,
    ) -> None:
        self._folder, self._data, self._size, self._device, self._progress = folder, data, size, device, progress
        self.done = self.total = 0

        def trained(epoch: int, epochs: int, loss: float, accuracy: float) -> None:
            if progress is not None:
                progress(epoch, epochs, "training the source model")

        self.model: nn.Module = source_segmenter(weights, data=data, progress=trained).to(device)
        self.digest = fingerprint(self.model)
        self._scenes = camvid("test", data=data)
        self._streams: dict[int, RoundsStream] = {}

    def stream(self, seed: int) -> RoundsStream:
        if seed not in self._streams:
            self._streams[seed] = weather_stream(self._scenes, severity=SEVERITY, size=self._size, seed=seed)
        return self._streams[seed]

    def path(self, label: str, row: Row, seed: int) -> Path:
        """The file of a row; its name carries all that the outcome depends on."""
        identity: dict[str, Any] = {
            "format": FORMAT,
            "method": row.make().config(),
            "gated": row.gated,
            "equal": chosen_rows(["surgeon"])["surgeon"].make().config() if label == EQUAL else None,
            "stream": self.stream(seed).fingerprint(),
            "seed": seed,
            "model": self.digest,
            "device": torch.device(self._device).type,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        name = "".join(letter if letter.isalnum() else "-" for letter in label).replace("--", "-")
        return self._folder / "camvid" / f"{name}-{digest[:12]}.json"

    def _tell(self, done: int, label: str) -> None:
        if self._progress is not None:
            self._progress(self.done + done, self.total, label)

    def row(self, label: str, row: Row, seed: int, *, earlier: int = 0) -> Comparison:
        """A row as its file has it, or run now; `earlier` batches of it were done under other seeds."""
        path = self.path(label, row, seed)
        if path.is_file():
            try:
                return Comparison.load(path)
            except ValueError:
                path.unlink()  # of a run that broke
        self._tell(earlier, label)
        method = self._fitted(label, row, seed)
        with profiled():
            found = compare(
                self.model,
                self.stream(seed),
                {label: method},
                seed=seed,
                device=self._device,
                progress=lambda label, done, _: self._tell(done + earlier, label),
                measure=True,
            )
        found.save(path)
        return found

    def _fitted(self, label: str, row: Row, seed: int) -> Method:
        """The row's method, with what it has to know of the source model."""
        method = row.make()
        if row.gated:
            scenes = camvid("train", data=self._data)
            return replace(method, threshold=confidence_threshold(self.model, scenes, self._device))  # pyright: ignore[reportCallIssue]
        if label == EQUAL:
            images = next(iter(self.stream(seed))).images.to(self._device)
            other = chosen_rows(["surgeon"])["surgeon"].make()
            held = adapt(self.model, other, guard=None, seed=seed).memory(images).saved or 0
            return holding_as_much(method, self.model, images, held, seed=seed)[0]
        return method
