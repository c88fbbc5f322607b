"""Reports of what backward keeps: each storage once, importances by hand, the probe, and the last step."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.anatomy import everything
from acclimate.memory import SurgeonSavings, keeper
from acclimate.methods.tent import Tent

from .keeping import Ours, kept, seeded

COUNT, WIDTH, SIDE = 40, 8, 12


@pytest.fixture
def everything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SMALL", 0)


def net() -> nn.Sequential:
    """Two convolutions, each with a batch norm and a ReLU: the second reads what the first ReLU keeps in bits."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(WIDTH, 5),
        )
    )


def images(number: int = 0) -> Tensor:
    return torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(number))


def adapting(policy: str | SurgeonSavings, **options: object) -> acclimate.Adapted:
    return acclimate.adapt(net(), Tent(select=everything, memory=policy, normalization="batch"), **options)


@pytest.mark.usefixtures("everything_is_packed")
@pytest.mark.parametrize("policy", ["surgeon", "surgeon:faithful", "quantized:4-bit", "exact"])
def test_lines_add_up_to_what_is_held(policy: str) -> None:
    """No tensor is too small for a line, and one forward keeps everything until its backward."""
    adapted = adapting(policy)
    report, books = adapted.memory_report(images()), adapted._keeper
    assert sum(line.dense for line in report.lines) == books.dense.peak == report.stock
    assert sum(line.held for line in report.lines) == books.held.since
    assert all(line.dense >= 0 and line.held >= 0 for line in report.lines)


@pytest.mark.usefixtures("everything_is_packed")
@pytest.mark.parametrize("policy", ["surgeon", "exact"])
def test_dense_lines_are_what_hooks_of_our_own_count(policy: str) -> None:
    model, x = net().train(), images()
    with Ours(model) as ours:
        loss = model(x).square().sum()
    del loss
    with kept(model, policy, x) as books:
        loss = model(x).square().sum()
        assert sum(line.dense for line in books.lines) == ours.bytes
        assert sum(line.held for line in books.lines) == books.held.now
    del loss


def test_a_storage_kept_in_two_ways_is_counted_at_its_first_line() -> None:
    report = adapting("surgeon").memory_report(images())
    activation = 4 * COUNT * WIDTH * SIDE**2
    (bits,) = [number for number, line in enumerate(report.lines) if line.codec == "Bits" and line.dense][:1]
    (sparse,) = [number for number, line in enumerate(report.lines) if line.layer == "3.weight"]
    assert bits < sparse and report.lines[bits].dense == activation and report.lines[sparse].dense == 0
    assert report.lines[bits].held == activation // 32 and report.lines[sparse].held > 0
    assert 0.98 * report.stock < sum(line.dense for line in report.lines) <= report.stock
    row = next(row for row in str(report).splitlines() if " 3.weight " in row)
    assert row.split()[4] == "same"


def test_a_small_view_of_a_large_storage_has_a_line() -> None:
    """PyTorch holds the whole storage for it."""
    x = torch.randn(10, 4096, requires_grad=True)
    with kept(nn.Identity(), "exact", x) as books:
        big = x * 1
        answers = torch.sin(big[:1, :100]), torch.sin(big)
        assert [(line.dense, line.held) for line in books.lines] == [(10 * 4096 * 4, 10 * 4096 * 4), (0, 0)]
        assert books.dense.now == 10 * 4096 * 4
    del answers


def test_importances_are_those_by_hand() -> None:
    """All samples probed and all kept: G and M of the paper, from torch's own gradients in float64."""
    policy = SurgeonSavings(probe=COUNT, probe_keep=1.0, norms=32, curves=32, values="float32")
    report = adapting(policy).memory_report(images())
    model = net().double().train()
    log_p = model(images().double()).log_softmax(1)
    weights = {name: weight for name, weight in model.named_parameters() if name.endswith("weight")}
    found = torch.autograd.grad(-(log_p.exp() * log_p).sum(1).mean(), list(weights.values()))
    pixels = SIDE**2
    inputs = [3 * pixels, WIDTH * pixels, WIDTH * pixels, WIDTH * pixels, WIDTH]
    scores = {}
    for name, gradient, size in zip(weights, found, inputs, strict=True):
        g, m = math.sqrt(float(gradient.square().sum()) / gradient.numel()), -math.log(size / sum(inputs))
        assert report.gradient_importance[name] == pytest.approx(g, rel=1e-4), name
        assert report.memory_importance[name] == pytest.approx(m, rel=1e-5), name
        scores[name] = g * m
    for name, score in scores.items():
        assert report.shares[name] == pytest.approx(score / max(scores.values()), rel=1e-4), name
    text = str(report).splitlines()
    assert text[0].split()[-3:] == ["G", "M", "share"]
    row = next(row for row in text if " 3.weight " in row).split()
    shown = report.gradient_importance["3.weight"], report.memory_importance["3.weight"], report.shares["3.weight"]
    assert row[-3:] == [f"{shown[0]:.2e}", f"{shown[1]:.2f}", f"{shown[2]:.3f}"]


def test_a_step_leaves_importances_for_its_record() -> None:
    adapted = adapting("surgeon")
    adapted(images())
    for name in ("gradient_importance", "memory_importance"):
        found = adapted.last.detail(name)
        assert list(found) == list(adapted.state.weights)
        assert all(value > 0 for weight, value in found.items() if weight.endswith("weight"))
    assert all(adapted.last.detail("memory_importance")[name] == 0 for name in found if name.endswith("bias"))


def test_the_probe_is_told() -> None:
    """Of 40 samples 2 are probed as they are: what PyTorch holds for 2 rows."""
    adapted = adapting("surgeon")
    report = adapted.memory_report(images())
    model = net().train()
    with Ours(model) as ours:
        log_p = model(images()[:2].clone()).log_softmax(1)
        loss = -(log_p.exp() * log_p).sum()
    del loss
    assert report.probed == 2 and report.probe_peak == pytest.approx(ours.bytes, rel=0.01)
    assert f"probe of 2 samples, before the step: peak {report.probe_peak / 1e6:.2f} MB" in str(report)
    later = adapting(SurgeonSavings(refresh=2))
    later(images())
    report = later.memory_report(images())
    assert report.probed == report.probe_peak == 0 and report.shares and not report.gradient_importance


@pytest.mark.parametrize("policy", ["exact", "quantized", SurgeonSavings(share=0.5)])
def test_without_a_probe_nothing_is_told_of_it(policy: str | SurgeonSavings) -> None:
    report = adapting(policy).memory_report(images())
    assert not (report.gradient_importance or report.memory_importance or report.shares or report.probed)
    text = str(report)
    assert "probe" not in text and text.splitlines()[0].split()[-2:] == ["kB", "share"]


@pytest.mark.parametrize("policy", ["exact", "quantized", SurgeonSavings(probe=COUNT)])
def test_without_an_input_it_is_that_of_the_last_step(policy: str | SurgeonSavings) -> None:
    made, measured = adapting(policy), adapting(policy)
    made(images(0)), measured(images(0))
    made(images(1))
    assert made.memory_report() == measured.memory_report(images(1))
    assert measured.memory_report() == measured.memory_report(images(1)), "a measured one is the last one too"


@pytest.mark.parametrize("policy", ["exact", "surgeon", "stock"])
def test_without_an_input_and_a_step_there_is_nothing_to_report(policy: str) -> None:
    adapted = adapting(policy)
    with pytest.raises(ValueError, match=r"found no books .* expected .* Pass an input, or choose memory='exact'"):
        adapted.memory_report()
    if policy == "stock":
        adapted.memory(images())
        adapted(images())
        with pytest.raises(ValueError, match="Pass an input"):
            adapted.memory_report()


def test_a_report_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from acclimate.memory.plot import draw

    report = adapting("surgeon").memory_report(images())
    assert report.plot(tmp_path / "kept.png").read_bytes()[:4] == b"\x89PNG"
    text = draw(report, tmp_path / "kept.svg").read_text()
    assert text.count("<!-- conv2d input  3  [sparse") == 1
