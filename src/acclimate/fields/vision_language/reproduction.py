"""COSMIC's two tables, ImageNet with its variants and ten cross-domain data sets, beside the published numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from acclimate.core.config import whole, whole_or_none
from acclimate.core.storage import atomic_write
from acclimate.experiment.compute import Compute
from acclimate.experiment.environment import environment
from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.vision_language.data.catalogue import CROSS_DOMAIN, DATASETS, OUT_OF_DISTRIBUTION
from acclimate.fields.vision_language.data.opening import facts_of
from acclimate.fields.vision_language.entry import adapt
from acclimate.fields.vision_language.evaluation import Outcome, evaluate
from acclimate.fields.vision_language.lineup import ORACLE, ROWS, TRANSFER, Row, chosen_rows, fitted
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.oracle import WeightGrid, oracle_weights
from acclimate.fields.vision_language.showing import Found, show
from acclimate.fields.vision_language.supply import Progress, Supplied, Supply

__all__ = ["AUXILIARY", "MODEL", "finished", "reproduce_cosmic"]

FORMAT = 1
"""Of what a trial's file depends on."""

MODEL = "openai/clip-vit-base-patch16"
AUXILIARY = "facebook/dinov2-with-registers-large"

_TITLE = "COSMIC and its kin on ImageNet's variants and across domains"
_BATCH = 64


def reproduce_cosmic(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    features: str | Path | None = None,
    model: str | None = None,
    auxiliary: str | None = None,
    descriptions: str | Path | None = None,
    views: int = 16,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    size: int | None = None,
    weights_from: str = "imagenet",
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[Path, Path]:
    """Run the methods over whichever of the fifteen data sets are there, and write both tables; resumable.

    Images are encoded once, with all views, into `features/` in the folder; then every method runs on features, the
    first views of each image as far as it looks at them, in a new order under each seed. A finished trial, of a row on
    a data set under a seed, is one file in `trials/` and is not run again. Data sets that are not there are named.

    Arguments:
        folder: for features, trials, tables and pages.
        data: where data sets lie side by side; see `open_images`.
        features: where files `<data set>.safetensors` or `.npz` lie, which go first; see `read_features`.
        model: CLIP by its name on the hub or a folder, or `open_clip:RN50-quickgelu:openai`; `MODEL` by default. Needed
            for images without such a file alone.
        auxiliary: the second encoder, `AUXILIARY` by default; "none" for none.
        descriptions: a folder of files `<data set>.json` with sentences of each class, averaged with the templates'
            prompts as in the published runs; without it texts are of templates alone.
        views: of each image that is encoded. TDA and ZERO are published with up to 64, from smaller crops.
        methods: keys of rows, or methods by name; all rows by default.
        seeds: of order and methods; the tables have means. Views are the same under all.
        size: at most so many images of each data set, evenly spaced; all by default.
        weights_from: the data set whose labels choose weights for the row "cosmic:transfer".
        device: where to compute.
        progress: called with what is done, of how much, and what it is.

    Returns: the paths of the Markdown and the HTML page.

    Raises:
        ValueError: an unknown method or data set, no seeds, a device or encoders that cannot be used here.
        FileNotFoundError: none of the data sets is there, or no descriptions where those were asked for.

    Cost: for each image `views` forwards and one of the second encoder, once; then a few milliseconds a method.
    """
    folder, rows = _place(folder), chosen_rows(methods)
    facts_of(weights_from)
    Compute(device=device).check()
    whole(1, views=views)
    whole_or_none(1, size=size)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds are {list(seeds)}, expected at least one, each of them once.")
    supply = Supply(
        features=None if features is None else _place(features),
        data=None if data is None else _place(data),
        keep=folder / "features",
        model=model or MODEL,
        auxiliary=None if auxiliary == "none" else auxiliary or AUXILIARY,
        descriptions=None if descriptions is None else _place(descriptions),
        views=views,
        size=size,
        device=device,
        progress=progress,
    )
    run = _Run(folder, rows, seeds, size, device, progress)
    for name in DATASETS:
        supplied = supply.find(name)
        if isinstance(supplied, str):
            run.found.absent[name] = supplied
        else:
            run.dataset(name, supplied)
    if not run.found.told:
        first = next(iter(run.found.absent.values()))
        raise FileNotFoundError(f"none of the {len(DATASETS)} data sets is there; of the first: {first}")
    about = "Written by acclimate.fields.vision_language.reproduce_cosmic."
    shown = [show(group, rows, run.found, seeds, weights_from) for group in (OUT_OF_DISTRIBUTION, CROSS_DOMAIN)]
    return write_all(folder, _TITLE, about, shown)


def _place(folder: str | Path) -> Path:
    return Path(folder).expanduser().absolute()


class _Run:
    """Rows by data sets by seeds, and what is finished of them."""

    def __init__(
        self,
        folder: Path,
        rows: Mapping[str, Row],
        seeds: Sequence[int],
        size: int | None,
        device: str,
        progress: Progress | None,
    ) -> None:
        self._trials, self._seeds, self._size, self._device = folder / "trials", seeds, size, device
        self._progress = progress
        needed = {key: row for key, row in rows.items() if key != TRANSFER}
        if TRANSFER in rows:
            needed[ORACLE] = ROWS[ORACLE]
        self._rows = needed
        self._done = 0
        self.found = Found(environment(device))

    def dataset(self, name: str, supplied: Supplied) -> None:
        """All rows under all seeds; a row that cannot run is told."""
        features = supplied.features
        self.found.told[name] = (
            f"{min(len(features), self._size or len(features)):,} of {DATASETS[name].size:,} images, "
            f"{len(features.text)} classes, {features.views} views, {supplied.told}"
        )
        for key, row in self._rows.items():
            try:
                outcomes = tuple(self._trial(name, supplied, row, seed) for seed in self._seeds)
                self.found.outcomes[name, key] = outcomes
            except ValueError as reason:
                self.found.failed[name, key] = str(reason)

    def _trial(self, name: str, supplied: Supplied, row: Row, seed: int) -> Outcome | WeightGrid:
        """As its file has it, or run now."""
        method, features = fitted(row.method, name), supplied.features
        looked = min(features.views, getattr(method, "views", 1))
        identity: dict[str, Any] = {
            "format": FORMAT,
            "dataset": name,
            "features": supplied.digest,
            "method": method.config(),
            "plain": row.plain,
            "oracle": row.labelled,
            "views": looked,
            "size": self._size,
            "seed": seed,
            "device": torch.device(self._device).type,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        path = self._trials / name / f"{row.key.replace(':', '-')}-{seed}-{digest[:12]}.json"
        kind = "grid" if row.labelled else "outcome"
        known = finished(path, row, kind)
        if known is None:
            known = self._run(name, supplied, row, seed, looked)
            whole = {**identity, "environment": self.found.machine, kind: asdict(known)}
            atomic_write(path, f"{json.dumps(whole, indent=1, allow_nan=False)}\n".encode())
        return known

    def _run(self, name: str, supplied: Supplied, row: Row, seed: int, views: int) -> Outcome | WeightGrid:
        features, method = supplied.features, fitted(row.method, name)
        count = min(len(features), self._size or len(features))

        def tell(images: int) -> None:
            if self._progress is not None:
                self._progress(images, count, f"{DATASETS[name].title}, {row.key}, seed {seed}")

        tell(0)
        batches = features.batches(batch_size=_BATCH, seed=seed, size=self._size, views=views)
        model = features.model(simple=row.plain).to(self._device)
        if row.labelled:
            assert isinstance(method, COSMIC)
            return oracle_weights(model, batches, method, seed=seed, progress=tell)
        return evaluate(adapt(model, method=method, seed=seed), batches, progress=tell)


def finished(path: Path, row: Row, part: str | None = None) -> Outcome | WeightGrid | None:
    """A finished trial, which its file holds as a whole or as a part of it; None for no file, or a broken one."""
    if not path.is_file():
        return None
    try:
        whole: Any = json.loads(path.read_text(encoding="utf-8"))
        known = whole if part is None else whole[part]
        if row.labelled:
            return WeightGrid(tuple(map(tuple, known["correct"])), known["scored"])
        values: dict[str, Any] = {each.name: known[each.name] for each in fields(Outcome)}
        values["per_class"] = tuple(values["per_class"])
        return Outcome(**values)
    except (ValueError, KeyError, TypeError):
        return None
