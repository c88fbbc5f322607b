"""The methods on real images under corruption, with the small encoders: which of them is worth its while here?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor

from acclimate.core.storage import atomic_write, fingerprint
from acclimate.experiment.reproduce.part import Cell, Grid, Line, Shown
from acclimate.experiment.reproduce.write import write_all
from acclimate.fields.vision_language.entry import adapt
from acclimate.fields.vision_language.evaluation import Outcome, evaluate
from acclimate.fields.vision_language.feature_files import read_features, write_features
from acclimate.fields.vision_language.features import Features
from acclimate.fields.vision_language.lineup import TRANSFER, Row, chosen_rows
from acclimate.fields.vision_language.methods.cosmic import COSMIC
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.oracle import WeightGrid, oracle_weights
from acclimate.fields.vision_language.reproduction import finished
from acclimate.fields.vision_language.texts.matrix import text_matrix
from acclimate.fields.vision_language.tiny.captions import Captions
from acclimate.fields.vision_language.tiny.drawings import drawings
from acclimate.fields.vision_language.tiny.towers import TinyClip, TinySight
from acclimate.fields.vision_language.tiny.training import load_tiny
from acclimate.fields.vision_language.views import Crops
from acclimate.streams import open_stream
from acclimate.streams.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS

__all__ = ["corruption_features", "reproduce_tiny"]

_ENCODED = 50
TEMPLATES = ("a photo of {}", "a dark photo of {}", "a bright photo of {}")

Progress = Callable[[int, int, str], None]


def tiny_model() -> tuple[VisionLanguage, TinyClip]:
    """Both encoders with the weights that were trained for them. FileNotFoundError where there are none yet."""
    clip, sight = load_tiny("clip-tiny"), load_tiny("sight-tiny")
    assert isinstance(clip, TinyClip) and isinstance(sight, TinySight)
    texts = text_matrix(clip.encode_text, _named(clip), templates=TEMPLATES)
    model = VisionLanguage(clip.image_encoder, texts, logit_scale=clip.logit_scale, auxiliary=sight, classes=clip.names)
    return model.eval(), clip


def _named(clip: TinyClip) -> list[str]:
    captions = Captions(clip.names)
    return [captions.text(label).removeprefix("a photo of ") for label in range(len(clip.names))]


@torch.no_grad()
def corruption_features(
    folder: Path,
    corruption: str,
    *,
    split: str = "test",
    size: int = 500,
    views: int = 16,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Features:
    """CIFAR-10 under one corruption at severity 5, seen by both encoders; kept as a feature file in `folder`."""
    model, clip = tiny_model()
    identity = [fingerprint(model), split, corruption, size, views, seed]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    path = folder / f"{split}-{corruption}-{digest}.safetensors"
    if path.is_file():
        return read_features(path)
    stream = open_stream(
        "cifar10:continual", split=split, corruptions=(corruption,), size=size, batch_size=_ENCODED, seed=seed
    )
    rows: list[Tensor] = []
    finer: list[Tensor] = []
    labels: list[Tensor] = []
    crops, done = Crops(count=views), 0
    for batch in stream:
        images = torch.stack([crops.of(image, seed, done + place) for place, image in enumerate(batch.images)])
        with model.looking(auxiliary=True) as seen:
            model(images)
        assert seen.views is not None and seen.auxiliary is not None
        rows, finer, labels = [*rows, seen.views], [*finer, seen.auxiliary], [*labels, batch.labels]
        done += len(images)
        if progress is not None:
            progress(done)
    plain = text_matrix(clip.encode_text, _named(clip), templates=TEMPLATES[:1])
    found = Features(
        clip=torch.cat(rows),
        text=model.text_features,
        logit_scale=float(model.logit_scale),
        auxiliary=torch.cat(finer),
        simple=plain,
        labels=torch.cat(labels),
        classes=clip.names,
        name=corruption,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(path, found)
    return read_features(path)  # as the next run will have them


def reproduce_tiny(
    folder: str | Path,
    *,
    methods: Sequence[str] = (),
    corruptions: Sequence[str] = (),
    size: int = 500,
    views: int = 16,
    seeds: Sequence[int] = (0,),
    validation: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, Path]:
    """Run the methods on CIFAR-10 under each corruption, state anew with each; writes tables, and can be resumed.

    Arguments: `folder`, for features, trials and tables; `methods`, keys of rows as of `reproduce_cosmic`, all by
    default; `corruptions`, the standard fifteen by default, or the four extra ones with `validation`, which takes
    training images; `size`, images of each; `views` of each image, of which each method looks at as many as it is
    published with; `seeds` of order and methods.

    Returns the paths of the Markdown and the HTML page.
    Raises FileNotFoundError until both encoders are trained: `acclimate train clip-tiny`, `acclimate train sight-tiny`.
    Cost: `views + 1` forwards of small networks for each image, once; then milliseconds a method.
    """
    folder = Path(folder).expanduser()
    if TRANSFER in methods:
        raise ValueError(f"{TRANSFER} takes weights from another data set, and there is only one here. Leave it out.")
    rows = {key: row for key, row in chosen_rows(methods).items() if key != TRANSFER}
    failed: dict[str, str] = {}
    names = tuple(corruptions) or tuple(EXTRA_CORRUPTIONS if validation else CORRUPTIONS)
    split = "train" if validation else "test"
    found: dict[tuple[str, str], list[Outcome | WeightGrid]] = {}
    total = len(names) * len(rows) * len(seeds)
    for corruption in names:
        features = corruption_features(folder / "features", corruption, split=split, size=size, views=views)
        for row in rows.values():
            for seed in seeds:
                if progress is not None:
                    progress(sum(map(len, found.values())), total, f"{row.key} under {corruption}, seed {seed}")
                try:
                    outcome = _trial(folder / "trials", features, row, split, seed)
                except ValueError as reason:
                    failed[row.key] = str(reason)
                    continue
                found.setdefault((row.key, corruption), []).append(outcome)
    rows = {key: row for key, row in rows.items() if key not in failed}
    first = corruption_features(folder / "features", names[0], split=split, size=size, views=views)
    told = "training" if validation else "test"
    shown = Shown(
        title=f"Small encoders on CIFAR-10's {told} images under corruption",
        protocol=(
            f"clip-tiny and sight-tiny; {size:,} images under each of {len(names)} corruptions at severity 5, {views} "
            f"views; state anew with each corruption; seeds {', '.join(map(str, seeds))}; answers online"
        ),
        grids=_grids(rows, names, found),
        drawings=drawings(first, names[0], split, seeds[0]),
        notes=[
            "Rows of the ORACLE have weights that were chosen on the labels of these very images.",
            *(f"{key} did not run: {reason}" for key, reason in failed.items()),
        ],
    )
    return write_all(folder, "COSMIC and its kin with small encoders", "acclimate reproduce cosmic", [shown])


def _trial(folder: Path, features: Features, row: Row, split: str, seed: int) -> Outcome | WeightGrid:
    identity = [features.name, split, len(features), row.method.config(), row.plain, row.labelled, seed]
    digest = hashlib.sha256(json.dumps([*identity, _bytes(features)], sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{row.key.replace(':', '-')}-{features.name}-{digest}.json"
    known = finished(path, row)
    if known is not None:
        return known
    looked = min(features.views, getattr(row.method, "views", 1))
    batches = features.batches(seed=seed, views=looked)
    model = features.model(simple=row.plain)
    outcome: Outcome | WeightGrid
    if row.labelled:
        assert isinstance(row.method, COSMIC)
        outcome = oracle_weights(model, batches, row.method, seed=seed)
    else:
        outcome = evaluate(adapt(model, method=row.method, seed=seed), batches)
    atomic_write(path, json.dumps(asdict(outcome)).encode())
    return outcome


def _bytes(features: Features) -> str:
    digest = hashlib.sha256()
    for array in (features.clip, features.auxiliary, features.text, features.simple):
        if array is not None:
            digest.update(array.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _grids(
    rows: dict[str, Row], names: Sequence[str], found: dict[tuple[str, str], list[Outcome | WeightGrid]]
) -> list[Grid]:
    lines: list[Line] = []
    oracle: list[Line] = []
    times: list[Line] = []
    for row in rows.values():
        outcomes = {name: found[row.key, name] for name in names}
        each = {name: [_top1(outcome) for outcome in values] for name, values in outcomes.items()}
        means = [fmean(seed) for seed in zip(*each.values(), strict=True)]
        cells: list[Cell] = [fmean(values) for values in each.values()]
        spread = f"{stdev(means):.2f}" if len(means) > 1 else None
        (oracle if row.labelled else lines).append(Line("measured", row.title, [*cells, fmean(means), spread]))
        taken = [o.milliseconds for values in outcomes.values() for o in values if isinstance(o, Outcome)]
        if taken:
            times.append(Line("measured", row.title, [fmean(taken)]))
    head = [*(name.replace("_", " ") for name in names), "mean", "± seeds"]
    chosen = Grid(key="tiny-oracle", head=head, lines=oracle, title="ORACLE: labels have chosen the weights")
    cost = Grid(key="tiny-milliseconds", head=["ms"], lines=times, fine=frozenset({"ms"}), title="Beyond the encoders")
    return [Grid(key="tiny", head=head, lines=lines, title="Top-1 accuracy, %"), *([chosen] if oracle else []), cost]


def _top1(outcome: Outcome | WeightGrid) -> float:
    return outcome.top1 if isinstance(outcome, Outcome) else outcome.top1(outcome.best)
