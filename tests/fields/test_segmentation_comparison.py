"""Weather streams, methods on label maps, and the table of a comparison."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.fields.segmentation import Confusion, Scenes, StillViews, compare, weather_stream, with_still_views
from acclimate.methods.cotta import CoTTA
from acclimate.methods.memo import MEMO
from acclimate.methods.palm import PALM
from acclimate.methods.tent import Tent
from acclimate.models.segmenter import Segmenter
from acclimate.streams import Batch

CLASSES = ("road", "sky", "car")


def scenes(count: int = 5) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 40), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, 3, (count, 32, 40), generator=generator)
    return Scenes("tiny", images, labels, CLASSES)


def model() -> Segmenter:
    return Segmenter(3, widths=(4, 8, 8)).eval()


def test_weather_comes_in_rounds_over_the_same_scenes():
    stream = weather_stream(scenes(), severity=2, rounds=2, batch_size=2)
    batches = list(stream)
    assert [(s.name, s.severity) for s in stream.segments] == [(n, 2) for n in ("fog", "night", "rain", "snow")] * 2
    assert len(batches) == len(stream) == 2 * 4 * 3
    for batch in batches[:12]:
        assert torch.equal(batch.images, batches[batch.position + 12].images)
        assert torch.equal(batch.index, batches[batch.position % 3].index)
    few = weather_stream(scenes(), size=2, batch_size=1, rounds=1)
    assert [batch.index.item() for batch in few] == [0, 2] * 4
    assert few.protocol()["parts"][0]["subset"] == "arange(size) * available // size"  # pyright: ignore


def test_the_fingerprint_tells_choices_apart():
    made = [
        weather_stream(scenes()),
        weather_stream(scenes(), severity=4),
        weather_stream(scenes(), rounds=9),
        weather_stream(scenes(), batch_size=1),
        weather_stream(scenes(), size=3),
        weather_stream(scenes(), seed=1),
        weather_stream(scenes(), conditions=("night", "fog", "rain", "snow")),
    ]
    assert len({stream.fingerprint() for stream in made}) == len(made)
    assert weather_stream(scenes()).fingerprint() == made[0].fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": ("hail",)}, "no corruption 'hail'"),
        ({"severity": 6}, "severity is 6"),
        ({"rounds": 0}, "rounds is 0"),
        ({"size": 6}, "size is 6"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_choices_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        weather_stream(scenes(), **options)  # pyright: ignore[reportArgumentType]


METHODS = {
    "source": "source",
    "bn": "bn",
    "tent": Tent(normalization="alpha"),
    "cotta": CoTTA(copies=2, threshold=1.0),
    "palm": PALM(),
}


@pytest.mark.parametrize("wrapped", [False, True])
def test_methods_adapt_to_label_maps(wrapped: bool, wrap: Callable[[nn.Module], nn.Module]):
    net = wrap(model()) if wrapped else model()
    found = compare(net, weather_stream(scenes(4), rounds=2, batch_size=2), METHODS)
    assert [cell.method for cell in found.cells] == [label for label in METHODS for _ in range(8)]
    assert all(0 <= cell.error <= 100 and cell.images == 4 for cell in found.cells)
    assert [(c.round, c.condition) for c in found.cells[:8]] == [
        (r, c) for r in (1, 2) for c in ("fog", "night", "rain", "snow")
    ]
    errors = {label: [c.error for c in found.cells if c.method == label] for label in METHODS}
    assert errors["source"][:4] == errors["source"][4:]  # nothing is learned
    for label in ("tent", "cotta", "palm"):
        assert errors[label] != errors["source"]
    assert errors["tent"][:4] != errors["tent"][4:]


def test_a_cell_is_the_score_of_its_batches_alone():
    net, stream = model(), weather_stream(scenes(), rounds=1, batch_size=2)
    found = compare(net, stream, ["source"])
    for part, condition in enumerate(("fog", "night", "rain", "snow")):
        counts = Confusion(3)
        with torch.no_grad():
            for batch in stream.parts[part]:
                counts.add(net(batch.images), batch.labels)
        cell = found.cells[part]
        assert (cell.condition, cell.severity) == (condition, 3)
        assert cell.error == pytest.approx(counts.error(), abs=1e-9)
        assert cell.pixel_error == pytest.approx(counts.pixel_error(), abs=1e-9)
        assert cell.iou == pytest.approx([100 * value for value in counts.iou().tolist()])


def test_tent_on_label_maps_is_one_step_on_the_mean_entropy_of_all_pixels():
    """Against a step written out in float64: batch statistics, Adam's first step is `lr * g / (|g| + eps)`."""
    net = model().double()
    images = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1)).double()
    adapted = acclimate.adapt(net, Tent(learning_rate=1e-3))
    answer = adapted(images)
    twin = model().double().train()
    logits = twin(images)
    log_p = logits.log_softmax(1)
    (-(log_p.exp() * log_p).sum(1)).mean().backward()
    assert torch.allclose(answer, logits.detach(), atol=1e-9)
    learned = dict(adapted.merged().named_parameters())
    moved = 0
    for name, module in twin.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            for kind in ("weight", "bias"):
                parameter = getattr(module, kind)
                step = 1e-3 * parameter.grad / (parameter.grad.abs() + 1e-8)
                found = learned[f"{name}.{kind}"]
                assert torch.allclose(found, parameter.detach() - step, atol=1e-8)
                moved += int(step.abs().max() > 1e-4)
    assert moved > 10


def test_the_table_has_the_published_form(tmp_path: Path):
    found = compare(model(), weather_stream(scenes(2), rounds=5, batch_size=2), ["source", "bn"])
    lines = found.table().splitlines()
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert head == ["method", *(f"{c} {r}" for r in (1, 4) for c in ("fog", "night", "rain", "snow")), "mean"]
    row = [cell.strip() for cell in lines[2].strip("|").split("|")]
    mean = math.fsum(cell.error for cell in found.cells if cell.method == "source") / 20
    assert row[0] == "source" and row[-1] == f"{mean:.1f}" and len(row) == len(head)
    with pytest.raises(ValueError, match="no method 'tent' here"):
        found.mean_error("tent")
    saved = json.loads(found.save(tmp_path / "new/found.json").read_text())
    assert saved["fingerprint"] == weather_stream(scenes(2), rounds=5, batch_size=2).fingerprint()
    assert len(saved["cells"]) == 40 and saved["methods"]["bn"]["name"] == "bn"


def test_watch_and_progress_see_every_batch():
    seen: list[tuple[str, int, list[int]]] = []
    told: list[tuple[str, int, int]] = []

    def watch(label: str, batch: Batch, answers: Tensor) -> None:
        seen.append((label, batch.position, list(answers.shape)))

    stream = weather_stream(scenes(2), rounds=1, batch_size=2)
    compare(model(), stream, ["source"], watch=watch, progress=lambda *call: told.append(call))
    assert seen == [("source", position, [2, 32, 40]) for position in range(4)]
    assert told == [("source", position + 1, 4) for position in range(4)]


def test_a_classifier_is_refused():
    with pytest.raises(ValueError, match="one for each pixel and class"):
        compare(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 40, 3)), weather_stream(scenes(2), rounds=1), ["source"])
    with pytest.raises(ValueError, match="expected a sequence"):
        compare(model(), weather_stream(scenes(2)), "tent")
    with pytest.raises(ValueError, match="no methods"):
        compare(model(), weather_stream(scenes(2)), [])


def test_still_views_leave_pixels_in_their_place():
    """A picture of one colour left and another right has no third colour anywhere after any view but for noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(2, 3, 8, 8)
    images[..., :4] = torch.tensor([0.6, 0.3, 0.2]).view(3, 1, 1)
    images[..., 4:] = torch.tensor([0.2, 0.5, 0.4]).view(3, 1, 1)
    state = torch.get_rng_state()
    for _ in range(10):
        view = StillViews(noise=0.0)(images, generator)
        assert torch.equal(view[..., :4], view[..., :1].expand(-1, -1, -1, 4))
        assert torch.equal(view[..., 4:], view[..., 4:5].expand(-1, -1, -1, 4))
        assert not torch.equal(view, images) and view.min() >= 0 and view.max() <= 1
    assert torch.equal(torch.get_rng_state(), state)
    noise = StillViews(noise=0.01)(torch.full((4, 3, 32, 32), 0.5), generator)
    assert 0.005 < (noise - noise.mean((2, 3), keepdim=True)).std() < 0.02


def test_views_are_replaced_only_where_they_move_pixels():
    own = StillViews(noise=0.1)
    assert isinstance(with_still_views(CoTTA()).views, StillViews)  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(with_still_views(MEMO()).views, StillViews)  # pyright: ignore[reportAttributeAccessIssue]
    assert with_still_views(CoTTA(views=own)).views is own  # pyright: ignore[reportAttributeAccessIssue]
    tent = Tent()
    assert with_still_views(tent) is tent
