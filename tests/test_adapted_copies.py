"""Snapshots, copies, conversions, and a source that none of them touches."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import nn

import acclimate
from conformance.models import MODELS
from conformance.tools import answers, assert_same, bits, book, make

FACTORY, BATCH = MODELS["batch_norm"]


def test_tags() -> None:
    """Automatic tags never overwrite; unknown ones are errors that list the known."""
    adapted = make("tent", FACTORY)
    tags = [adapted.snapshot(), adapted.snapshot()]
    adapted.forget(tags[0])
    tags += [adapted.snapshot(), adapted.snapshot()]
    assert len(set(tags)) == 4, "an automatic tag was given twice"
    adapted.forget("never taken")
    with pytest.raises(ValueError, match=tags[1]):
        adapted.restore(tags[0])


def test_a_snapshot_survives_what_follows() -> None:
    """Its tensors are copies: further steps, restores and resets leave it as it was."""
    adapted = make("tent", FACTORY)
    answers(adapted, map(BATCH, range(2)))
    tag = adapted.snapshot()
    before = {name: bits(t) for name, t in adapted._snapshots[tag][0].tensors.items()}
    adapted.restore(tag)
    answers(adapted, map(BATCH, range(2)))
    adapted.reset()
    adapted(BATCH(0))
    assert {name: bits(t) for name, t in adapted._snapshots[tag][0].tensors.items()} == before


def test_loading_a_state_dict_does_not_write_into_the_source() -> None:
    """torch's own load_state_dict would copy into storage that belongs to the source: refused, or kept away from it."""
    model = FACTORY()
    adapted = acclimate.adapt(model, "tent")
    foreign = {name: torch.zeros_like(tensor) for name, tensor in adapted.state_dict().items()}
    with contextlib.suppress(ValueError, NotImplementedError):
        adapted.load_state_dict(foreign, strict=False)
    for (name, ours), theirs in zip(model.state_dict().items(), FACTORY().state_dict().values(), strict=True):
        assert_same(ours, theirs, name)


def test_graphs_over_the_source_survive_adaptation() -> None:
    """A backward through the user's own model is not disturbed by steps taken in between."""
    model = FACTORY()
    adapted = acclimate.adapt(model, "palm")
    answers(adapted, map(BATCH, range(2)))
    loss = model(BATCH(0)).square().mean()
    answers(adapted, map(BATCH, range(2)))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_copies_are_independent() -> None:
    """`copy.deepcopy` gives a second adaptation that continues on its own."""
    adapted, twin = make("palm", FACTORY), make("palm", FACTORY)
    for each in (adapted, twin):
        answers(each, map(BATCH, range(2)))
    other = copy.deepcopy(adapted)
    answers(other, map(BATCH, range(3, 6)))
    assert_same(book(adapted), book(twin), "state of the original")
    later = [BATCH(number) for number in range(3, 6)]
    assert_same(answers(adapted, later), answers(twin, later), "answers of the original")
    assert_same(book(other), book(twin), "state of the copy")


def test_a_deep_copy_shares_nothing_and_gives_nothing_away() -> None:
    """The copy goes on like the original, and what it returns is the caller's own."""

    class Open(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.head(self.norm(x).mean((2, 3))), "scale": self.norm.weight}

    x = torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    adapted = acclimate.adapt(Open(), "tent")
    adapted(x)
    twin = copy.deepcopy(adapted)
    expected = adapted(x)
    found = twin(x)
    assert torch.equal(found["logits"], expected["logits"])
    found["scale"].zero_()
    assert torch.equal(twin(x)["logits"], adapted(x)["logits"])


def test_conversions() -> None:
    """Moving to where it is changes nothing; another number type is refused before anything changes."""
    adapted, twin = make("tent", FACTORY), make("tent", FACTORY)
    for each in (adapted, twin):
        answers(each, map(BATCH, range(2)))
    for convert in (lambda: adapted.double(), lambda: adapted.half(), lambda: adapted.to(torch.bfloat16)):
        with pytest.raises(ValueError, match="number type"):
            convert()
    assert adapted.to("cpu") is adapted and adapted.float() is adapted and adapted.cpu() is adapted
    later = [BATCH(number) for number in range(3, 6)]
    assert_same(answers(adapted, later), answers(twin, later), "answers")
    adapted.reset()
    assert_same(book(adapted), book(make("tent", FACTORY)), "state after reset()")


def test_models_built_under_inference_mode() -> None:
    """Their tensors refuse autograd: adapted all the same, or refused by adapt."""
    with torch.inference_mode():
        model = FACTORY()
    try:
        adapted = acclimate.adapt(model, "tent")
    except ValueError as error:
        assert "inference" in str(error)
    else:
        assert_same(adapted(BATCH(0)), make("tent", FACTORY)(BATCH(0)), "the answer")
