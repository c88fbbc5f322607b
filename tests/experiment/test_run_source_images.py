"""Source images in a run: which are drawn, who gets them, what the record says, what resuming demands."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.core.method import Card, Cost, Method, methods
from acclimate.core.state import State
from acclimate.experiment import Plan, SourceImages, load_results, run
from acclimate.experiment.report import report_html
from acclimate.experiment.source import training_split
from acclimate.streams import Dataset, Domain, Stream, mix, open_stream, stream_dataset

SEEN: list[tuple[Tensor, Tensor]] = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curious(Method):
    """Looks at its source images, and learns nothing."""

    name: ClassVar[str] = "curious"
    card: ClassVar[Card] = Card(summary="", paper="", needs=frozenset({"source images"}), fails_when="")
    source: Any = dataclasses.field(default=None, repr=False, compare=False, metadata={"recorded": False})

    def ready(self, state: State) -> None:
        if self.source is None:
            raise ValueError("no source images.")
        SEEN.append(self.source)

    def cost(self) -> Cost:
        return Cost(forwards=1, backwards=0)


@pytest.fixture(autouse=True)
def forget() -> None:
    SEEN.clear()


def pictures(split: str, count: int = 40) -> Dataset:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Dataset("pictures", images, torch.randint(3, (count,), generator=generator), ("a", "b", "c"), split)


def model() -> nn.Module:
    layer = nn.Linear(192, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 576).sin().view(3, 192))
        layer.bias.zero_()
    return nn.Sequential(nn.Flatten(), layer).eval()


def plan(split: str = "test", size: int | None = 12, *, count: int = 20, train: int = 40, **options) -> Plan:
    seen = pictures(split, 40)
    return Plan(
        stream=lambda seed: stream_dataset(seen, "clean", size=size, batch_size=6, seed=seed),
        model=model(),
        methods=options.pop("methods", {"source": methods.build("source"), "curious": Curious()}),
        source=SourceImages(dataset=pictures("train", train), count=count),
        **options,
    )


def test_those_who_ask_get_clean_labelled_images_drawn_by_the_seed(tmp_path: Path) -> None:
    run(plan(seeds=(0, 1)), tmp_path)
    assert len(SEEN) == 2
    data = pictures("train")
    for seed, (images, labels) in enumerate(SEEN):
        index = torch.from_numpy(np.random.default_rng([seed, 1]).permutation(40)[:20])
        assert torch.equal(images, data.images[index].float() / 255)
        assert torch.equal(labels, data.labels[index])
    assert not torch.equal(SEEN[0][0], SEEN[1][0])


def test_images_of_ones_own_are_left_alone_and_each_method_is_built_once_a_seed(tmp_path: Path) -> None:
    own = (torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))
    record = run(plan(methods={"curious": Curious(source=own)}), tmp_path)
    assert len(SEEN) == 1
    assert SEEN[0] is own
    assert "source" not in record.header.methods["curious"]


def test_a_stream_of_the_training_split_and_the_source_images_do_not_meet(tmp_path: Path) -> None:
    record = run(plan("train", size=12), tmp_path)
    stream = plan("train", size=12).stream(0)
    arrived = {tuple(image.flatten().tolist()) for batch in stream for image in batch.images}
    drawn = {tuple(image.flatten().tolist()) for image in SEEN[0][0]}
    assert len(drawn) == 20
    assert not arrived & drawn
    assert record.header.methods["curious"]["source"]["in_stream"] == {"0": 0}


def test_images_that_measure_forgetting_are_not_given_to_methods(tmp_path: Path) -> None:
    def opened(seed: int) -> Stream:
        source = Domain("clean", pictures("train"), is_source=True)
        return mix([Domain("other", pictures("test", 41)), source], size=8, batch_size=4, held_out=0.9, seed=seed)

    record = run(dataclasses.replace(plan(count=25), stream=opened), tmp_path)
    held = {tuple(image.flatten().tolist()) for batch in opened(0).held_out() for image in batch.images}
    drawn = {tuple(image.flatten().tolist()) for image in SEEN[0][0]}
    assert (len(held), len(drawn)) == (7, 25)
    assert not held & drawn
    assert record.header.methods["curious"]["source"]["in_stream"] == {"0": 0}


def test_what_must_be_in_the_stream_is_counted_and_told(tmp_path: Path) -> None:
    record = run(plan("train", size=30), tmp_path)
    assert record.header.methods["curious"]["source"]["in_stream"] == {"0": 10}
    assert "20 of 40 images of pictures, split train, by seed, 10 of them in the stream; for curious" in report_html(
        load_results(tmp_path)
    )


def test_the_record_says_what_was_drawn(tmp_path: Path) -> None:
    header = run(plan(count=2000, seeds=(0, 3)), tmp_path).header
    told = header.methods["curious"]["source"]
    assert (told["dataset"], told["split"], told["images"], told["available"]) == ("pictures", "train", 40, 40)
    assert len(set(told["fingerprints"].values())) == 2
    assert "source" not in header.methods["source"]


def test_resuming_with_other_source_images_is_refused(tmp_path: Path) -> None:
    run(plan(), tmp_path)
    run(plan(), tmp_path, resume=True)
    for other in (plan(count=21), plan(train=60)):
        with pytest.raises(ValueError, match="source images differ"):
            run(other, tmp_path, resume=True)


def test_runs_with_other_source_images_are_told_apart(tmp_path: Path) -> None:
    for name, count in (("a", 20), ("b", 20), ("c", 10)):
        run(plan(count=count), tmp_path / name)
    assert load_results(tmp_path / "a", tmp_path / "b").methods == ("source", "curious")
    assert load_results(tmp_path / "a", tmp_path / "c").methods == ("source", "curious", "curious (c)")


def test_without_them_the_error_says_what_to_do(tmp_path: Path) -> None:
    lacking = dataclasses.replace(plan(), source=None, no_source="Name some with --source-data.")
    with pytest.raises(ValueError, match=r"curious cannot run .*no source images\. Name some with --source-data\."):
        run(lacking, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_images_of_another_kind_are_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(pictures("train"), classes=("x", "y", "z"))
    wrong = dataclasses.replace(plan(), source=SourceImages(dataset=other))
    with pytest.raises(ValueError, match="do not belong to the stream"):
        run(wrong, tmp_path)
    with pytest.raises(ValueError, match="at least 1"):
        SourceImages(dataset=other, count=0)


def test_the_training_split_of_a_stream_is_found_or_asked_for() -> None:
    found = training_split("digits:gradual")
    assert (found.name, found.split, len(found)) == ("digits", "train", 1000)
    assert found.classes == open_stream("digits:clean").classes
    for spec in ("folder:anywhere:clean", "cifar100c:anywhere:clean"):
        with pytest.raises(ValueError, match=r"no training split .*--source-data"):
            training_split(spec)
