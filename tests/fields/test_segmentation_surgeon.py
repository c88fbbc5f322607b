"""SURGEON and Tent on label maps: selection by pixels, output objects, batches of one, and what is measured."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.fields.segmentation import Comparison, Scenes, StillViews, compare, weather_stream
from acclimate.memory import SurgeonSavings
from acclimate.methods.surgeon import Surgeon
from acclimate.methods.tent import Tent
from acclimate.models.segmenter import Segmenter

RATE = 1e-3


def scenes(count: int = 4) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 40), dtype=torch.uint8, generator=generator)
    labels = torch.randint(-1, 3, (count, 32, 40), generator=generator)
    return Scenes("tiny", images, labels, ("road", "sky", "car"))


def model() -> Segmenter:
    net = Segmenter(3, widths=(4, 8, 8))
    with torch.no_grad():
        net.head.weight.mul_(8)  # sure of some pixels and not of others
    return net.eval()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_surgeon_and_tent_adapt_models_with_output_objects(batch_size: int, wrap: Callable[[nn.Module], nn.Module]):
    methods = {
        "source": "source",
        "tent": Tent(normalization="alpha", learning_rate=RATE),
        "surgeon": Surgeon(normalization="alpha", learning_rate=RATE, views=StillViews()),
        "own views": Surgeon(normalization="alpha", learning_rate=RATE),  # compare puts still ones in their place
        "plain": Surgeon(normalization="alpha", learning_rate=RATE, certain=False, consistency=0.0, layers="norms"),
    }
    stream = weather_stream(scenes(), rounds=2, batch_size=batch_size)
    found = compare(wrap(model()), stream, methods, measure=True)
    errors = {name: [cell.pixel_error for cell in found.cells if cell.method == name] for name in methods}
    assert errors["source"][:4] == errors["source"][4:]
    for name in ("tent", "surgeon", "plain"):
        assert errors[name] != errors["source"] and errors[name][:4] != errors[name][4:]
    assert errors["own views"] == errors["surgeon"]


def certain_pixels(logits: Tensor, margin: float) -> tuple[Tensor, int]:
    """`(1 / |Q|) sum_Q exp(E0 - H) H` over all pixels of the batch with `H < E0`, written out."""
    log_p = logits.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1).flatten()
    limit = margin * math.log(logits.shape[1])
    sure = entropy[entropy.detach() < limit]
    return ((limit - sure.detach()).exp() * sure).sum() / len(sure), len(sure)


@pytest.mark.parametrize("images", [1, 2])
def test_selection_chooses_pixels(images: int):
    """Adam's first step is `rate g / (|g| + 1e-8)`, g of the loss over the pixels that are sure enough."""
    net = model().double()
    x = torch.rand(images, 3, 32, 40, generator=torch.Generator().manual_seed(1)).double()
    method = Surgeon(memory="stock", normalization="source", learning_rate=RATE, consistency=0.0)
    adapted = acclimate.adapt(net, method)
    adapted(x)
    twin = model().double()
    loss, count = certain_pixels(twin(x), 0.4)
    assert 0 < count < x[:, 0].numel()
    loss.backward()
    assert adapted.last is not None and adapted.last.values["selected"] == count
    learned = dict(adapted.merged().named_parameters())
    for name, weight in twin.named_parameters():
        assert weight.grad is not None
        step = RATE * weight.grad / (weight.grad.abs() + 1e-8)
        assert torch.allclose(learned[name], weight.detach() - step, atol=1e-7), name


def test_consistency_is_over_all_pixels():
    """With a view that is the batch itself `CE(p -> p)` is the entropy: its mean over pixels is what is learned."""

    class Same:
        def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
            return x

    net = model().double()
    x = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1)).double()
    method = Surgeon(memory="stock", normalization="source", learning_rate=RATE, margin=1e-9, views=Same())
    adapted = acclimate.adapt(net, method)
    adapted(x)
    twin = model().double()
    log_p = twin(x).log_softmax(1)
    loss = 0.01 * 3 * -(log_p.exp() * log_p).sum(1).mean()
    loss.backward()
    assert adapted.last is not None and adapted.last.loss == pytest.approx(loss.item())
    learned = dict(adapted.merged().named_parameters())
    for name, weight in twin.named_parameters():
        assert weight.grad is not None
        step = RATE * weight.grad / (weight.grad.abs() + 1e-8)
        assert torch.allclose(learned[name], weight.detach() - step, atol=1e-7), name


def test_measuring_changes_no_answer_and_is_kept(tmp_path: Path):
    stream = weather_stream(scenes(), rounds=1)
    pruned = SurgeonSavings(share=0.05)
    methods = {
        "bn": "bn",
        "full": Surgeon(memory="stock", learning_rate=RATE, certain=False, consistency=0.0),
        "probed": Surgeon(learning_rate=RATE, certain=False, consistency=0.0),
        "pruned": Surgeon(memory=pruned, learning_rate=RATE, certain=False, consistency=0.0),
    }
    net = Segmenter(3, widths=(16, 16, 16)).eval()
    found, plain = compare(net, stream, methods, measure=True), compare(net, stream, methods)
    assert found.cells == plain.cells and plain.memory == {}
    held = {name: found.memory[name]["saved"] or 0 for name in methods}
    assert held["bn"] == 0 < held["pruned"] < held["full"] == found.memory["full"]["stock"]
    assert found.memory["pruned"]["stock"] == held["full"]
    again = Comparison.load(found.save(tmp_path / "found.json"))
    assert again == replace(found, configs=json.loads(json.dumps(found.configs)))


def test_cells_without_labels_survive_the_file(tmp_path: Path):
    blank = Scenes("blank", scenes(2).images, torch.full((2, 32, 40), -1), ("road", "sky", "car"))
    found = compare(model(), weather_stream(blank, rounds=1), ["source"])
    again = Comparison.load(found.save(tmp_path / "found.json"))
    assert all(math.isnan(cell.error) and math.isnan(cell.pixel_error) for cell in again.cells)
    assert again.cells[0].iou == (None,) * 3 and again.cells[0].images == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', "null"])
def test_other_files_are_no_comparison(text: str, tmp_path: Path):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"odd\.json is no comparison of format 1"):
        Comparison.load(path)
