"""Pictures of what COSMIC keeps, and the code of its page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import acclimate
from acclimate import vision_language
from acclimate.fields.vision_language.caches import Cache
from acclimate.fields.vision_language.pictures import (
    cache_over_time,
    semantic_graph,
    support_grid,
    supporters,
    watch_cache,
)

PAGE = Path(__file__).parents[3] / "docs" / "vision-language.md"
TEXTS = torch.eye(4, 6) + 0.3
ROWS = torch.eye(4, 6)[torch.arange(24) % 4] + 0.2 * torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
FINER = torch.eye(4, 5)[torch.arange(24) % 4] + 0.1 * torch.randn(24, 5, generator=torch.Generator().manual_seed(1))


def adapted() -> acclimate.Adapted:
    return vision_language.adapt(None, TEXTS, "cosmic", logit_scale=20.0, classes=("ant", "bee", "cat", "dog"))


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S))
    exec(compile(source, str(PAGE), "exec"), {})
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("graph.png", "cache.png", "site-3.safetensors"))


def test_the_server_is_told_to_answer_in_turn() -> None:
    """By default it answers first and learns behind, which is another promise than the page's."""
    (command,) = re.findall(r"`(acclimate serve [^`]*)`", PAGE.read_text("utf-8").replace("\n", " "))
    assert "--update inline" in command


def test_a_cache_is_watched_batch_by_batch() -> None:
    model = adapted()
    parts = [(rows, {"auxiliary": other}) for rows, other in zip(ROWS.split(8), FINER.split(8), strict=True)]
    doubts, seen = watch_cache(model, parts)
    assert seen == [8, 16, 24] and doubts.shape == (4, 3)
    cache = Cache.of(model.state, "clip", ordered=False)
    for label in range(4):
        own = cache.entropies[label][cache.present[label]]
        assert (
            doubts[label, -1] == pytest.approx(float(own.mean()), rel=1e-5) if len(own) else np.isnan(doubts[label, -1])
        )
    assert cache_over_time(doubts, seen, ("ant", "bee", "cat", "dog")).axes


def test_supporters_are_the_images_that_were_kept() -> None:
    model = adapted()
    model(ROWS, auxiliary=FINER)
    found = supporters(model, ROWS)
    cache = Cache.of(model.state, "clip", ordered=False)
    for label, numbers in found.items():
        kept = cache.features[label][cache.present[label]]
        rows = torch.nn.functional.normalize(ROWS[numbers], dim=1)
        assert len(numbers) == len(kept)
        assert torch.allclose(rows.sum(0), kept.sum(0), atol=1e-5)
        logits = 20 * rows @ torch.nn.functional.normalize(TEXTS, dim=1).T
        doubt = torch.special.entr(logits.softmax(1)).sum(1)
        assert doubt.tolist() == sorted(doubt.tolist())
    images = torch.rand(24, 3, 8, 8)
    assert support_grid(images, found, ("ant", "bee", "cat", "dog"), query=images[0], chosen=[0, 1]).axes


@pytest.mark.parametrize("space", ["clip", "auxiliary"])
def test_the_graph_is_drawn_of_what_is_there(space: str) -> None:
    model = adapted()
    with pytest.raises(ValueError, match="from its first image on"):
        semantic_graph(model, space=space)
    model(ROWS, auxiliary=FINER)
    figure = semantic_graph(model, space=space, about=2)
    assert "cat" in figure.axes[0].get_title(loc="left")
    with pytest.raises(ValueError, match="expected cosmic"):
        semantic_graph(vision_language.adapt(None, TEXTS, "tda"))


def test_pictures_of_what_is_not_there_are_refused() -> None:
    model = adapted()
    assert supporters(model, FINER, "auxiliary") == {}, "nothing has come yet"
    for name, method in (("texts", model), ("clip", vision_language.adapt(None, TEXTS, "zero-shot"))):
        with pytest.raises(
            ValueError, match=f"keeps no cache '{name}', expected one of: (clip, auxiliary|none at all)"
        ):
            supporters(method, ROWS, name)
        with pytest.raises(ValueError, match=f"keeps no cache '{name}'"):
            watch_cache(method, [(ROWS, {"auxiliary": FINER})], name)
        assert method.state.batches == 0, "nothing was answered"
    doubts, _ = watch_cache(model, [(0 * ROWS, {"auxiliary": FINER}), (ROWS, {"auxiliary": FINER})], "auxiliary")
    assert np.isnan(doubts[:, 0]).all() and not np.isnan(doubts[:, 1]).all()
    with pytest.raises(ValueError, match=r"found features \[24, 5\], expected \[n, 6\]"):
        supporters(model, FINER)
    for about in (4, 99, -1):
        with pytest.raises(ValueError, match=f"there is no class {about}, expected one from 0 to 3"):
            semantic_graph(model, about=about)
    with pytest.raises(ValueError, match="there is no space 'texts', expected clip and auxiliary"):
        semantic_graph(model, space="texts")
    without = vision_language.adapt(None, TEXTS, "cosmic:without-cliques")
    without(ROWS, auxiliary=FINER)
    with pytest.raises(ValueError, match="cliques=False, which builds no graph"):
        semantic_graph(without)


@pytest.mark.parametrize("space", ["auxiliary", "clip"])
@pytest.mark.parametrize(("classes", "width"), [(1, 5), (2, 1), (4, 1)])
def test_few_classes_and_features_of_one_number_are_drawn(space: str, classes: int, width: int, tmp_path: Path) -> None:
    model = vision_language.adapt(None, torch.rand(classes, width) + 0.1, "cosmic")
    model(torch.rand(6, width) + 0.1, auxiliary=torch.rand(6, width) + 0.1)
    semantic_graph(model, space=space).savefig(tmp_path / "graph.png")


def test_dollars_in_names_are_no_formulas(tmp_path: Path) -> None:
    names = (r"$\frac$", "100$ bill", "$x_$", "dog")
    model = vision_language.adapt(None, TEXTS, "cosmic", logit_scale=20.0, classes=names)
    doubts, seen = watch_cache(model, [(ROWS, {"auxiliary": FINER})])
    semantic_graph(model).savefig(tmp_path / "graph.png")
    cache_over_time(doubts, seen, names).savefig(tmp_path / "cache.png")
    images = torch.rand(24, 3, 4, 4)
    found = supporters(model, ROWS)
    support_grid(images, found, names, query=images[0], chosen=[0, 1]).savefig(tmp_path / "support.png")


def test_without_features_nothing_can_support() -> None:
    model = adapted()
    model(ROWS, auxiliary=FINER)
    with pytest.raises(ValueError, match=r"found features \[0, 6\], expected \[n, 6\], n >= 1"):
        supporters(model, ROWS[:0])
