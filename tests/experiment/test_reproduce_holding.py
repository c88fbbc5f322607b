"""What a trial's steps hold: measured without a trace, counted as the paper counts, equal where it is to be equal."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from acclimate import adapt
from acclimate.core.method import methods
from acclimate.core.storage import fingerprint
from acclimate.experiment.reproduce import BENCHMARKS, Request, Site
from acclimate.experiment.reproduce.holding import Holding, input_sizes, published_cache
from acclimate.experiment.reproduce.perform import perform
from acclimate.memory import SurgeonSavings
from acclimate.models import resnet_50, resnext_29, wrn_28_10
from acclimate.models.initial import private_init

MODEL = """
from torch import nn
from acclimate.models.initial import private_init


def build():
    with private_init(0):
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
        )
"""


@pytest.fixture
def request_(site: Site) -> Request:
    return Request(
        benchmark=BENCHMARKS["digits"], model="net", weights=fingerprint(site.source()), size=48, batch_size=24
    )


def one(request: Request, method: str, **changes):
    (trial,) = request.trials(method, **changes)
    return replace(trial, measured=True)


PLAIN = {"certain": False, "consistency": 0.0}


@pytest.mark.parametrize(
    ("build", "shape", "full", "norms"),
    [
        (wrn_28_10, (200, 3, 32, 32), 3696.6, 1762.5),
        (resnext_29, (200, 3, 32, 32), 5403.1, 2725.0),
        (resnet_50, (64, 3, 224, 224), 5317.0, 2713.4),
    ],
)
def test_the_papers_count_gives_the_published_caches(build, shape, full: float, norms: float) -> None:
    with torch.device("meta"):
        model, images = build(), torch.empty(shape)
    sizes = input_sizes(model, images)
    assert published_cache(sizes, dict.fromkeys(sizes, 1.0)) == pytest.approx(full, abs=0.05)
    kinds = {f"{name}.weight": module for name, module in model.named_modules()}
    learns = {name: 1.0 for name in sizes if isinstance(kinds[name], nn.BatchNorm2d)}
    assert published_cache(sizes, learns) == pytest.approx(norms, abs=0.05)


def test_counting_leaves_the_model_as_it_was() -> None:
    with private_init(1):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = fingerprint(model)
    assert input_sizes(model, torch.rand(5, 3, 8, 8)) == {"0.weight": 5 * 3 * 64, "1.weight": 5 * 4 * 36}
    assert fingerprint(model) == before and model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("spec", ["tent", "surgeon", "surgeon:cifar10-c-bn", "cotta"])
def test_measuring_changes_no_answer(spec: str, site: Site) -> None:
    images = torch.rand(6, 16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = site.source()
    plain, looked = (adapt(model, methods.build(spec), seed=5) for _ in range(2))
    holding = Holding(looked, model)
    for number, batch in enumerate(images):
        if number % 2 == 0:
            holding.before(batch)
        assert torch.equal(plain(batch), looked(batch)), f"batch {number}"
        if number % 2 == 0:
            holding.after()
    assert plain.last is not None and looked.last is not None
    assert plain.last.values == looked.last.values
    facts = holding.facts()
    assert all(len(values) == 3 for values in facts.values())


def test_a_measured_trial_is_another_one_with_the_same_errors(site: Site, request_: Request) -> None:
    trial = one(request_, "surgeon", **PLAIN)
    plain = replace(trial, measured=False)
    assert trial.key != plain.key and "measured" not in plain.identity()
    ours, theirs = perform(trial, site), perform(plain, site)
    assert ours.errors == theirs.errors and ours.values == theirs.values
    assert "held" not in theirs.facts
    assert len(ours.facts["held"]) == len(ours.facts["stock"]) == 15
    json.dumps(ours.facts, allow_nan=False)


def test_stock_holds_what_pytorch_holds(site: Site, request_: Request) -> None:
    full = perform(one(request_, "surgeon", **PLAIN, memory="stock"), site)
    assert full.facts["held"] == full.facts["stock"]
    # Two ReLU outputs that are a convolution's input, the last ReLU's output, inputs of both norms and of the first
    # convolution: float32, each once. What else is held (logits, statistics, pooled features) is small.
    batch = 24
    elements = batch * (3 * 32 * 32 + 2 * 16 * 16 * 16 + 2 * 24 * 8 * 8 + 24 * 8 * 8)
    assert full.facts["held"][0] == pytest.approx(4 * elements, rel=0.02)
    counted = batch * (3 * 32 * 32 + 2 * 16 * 16 * 16 + 2 * 24 * 8 * 8 + 24)
    assert full.facts["cache"][0] == pytest.approx(4 / 2**20 * counted)
    for method in ("source", "bn"):
        outcome = perform(one(request_, method), site)
        assert set(outcome.facts["held"]) == {0} and set(outcome.facts["cache"]) == {None}


def test_a_static_share_holds_what_it_is_told_to(site: Site, request_: Request) -> None:
    whole = perform(one(request_, "surgeon", **PLAIN, memory=SurgeonSavings(share=1.0)), site).facts["held"][0]
    none = perform(one(request_, "surgeon", **PLAIN, memory=SurgeonSavings(share=0.0)), site).facts["held"][0]
    for part in (0.1, 0.3):
        asked = round(none + part * (whole - none))
        outcome = perform(replace(one(request_, "surgeon", **PLAIN), equal_bytes=asked), site)
        assert outcome.facts["held"] == pytest.approx([asked] * 15, rel=0.01)
        assert 0 < outcome.facts["share"] < 1
    for asked, share in ((1, 0.0), (10 * whole, 1.0)):
        assert perform(replace(one(request_, "surgeon", **PLAIN), equal_bytes=asked), site).facts["share"] == share


def test_only_shares_can_be_made_equal(site: Site, request_: Request) -> None:
    with pytest.raises(ValueError, match="'stock' has no share"):
        perform(replace(one(request_, "tent"), equal_bytes=1000), site)


def test_labels_tell_what_was_changed_and_identities_are_json(request_: Request) -> None:
    trial = one(request_, "surgeon", memory=SurgeonSavings(gradient_importance=False), certain=False)
    assert "memory=surgeon(gradient_importance=False)" in trial.label and "certain=False" in trial.label
    assert json.loads(json.dumps(trial.identity()))["method"]["memory"]["gradient_importance"] is False
    equal = replace(trial, equal_bytes=12_345)
    assert "bytes=12,345" in equal.label and equal.key != trial.key
    assert one(request_, "surgeon", memory="surgeon").key == one(request_, "surgeon").key
