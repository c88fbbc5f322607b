"""What cannot be exchanged is refused, with a way out."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

pytest.importorskip("diffusers")

import diffusers
import torch
from diffusers.models.attention_processor import SlicedAttnProcessor
from plain_exchange import PlainExchange
from tiny_transformers import built, call_dit, drawn, trajectory
from torch import nn

from acclimate.fields.diffusion.attach.compact import compact
from acclimate.fields.diffusion.attach.compacted import Compacted
from acclimate.fields.diffusion.attach.inputs import digest
from acclimate.fields.diffusion.exchange.simulated import Simulated
from acclimate.fields.diffusion.exchange.strategy import Strategy
from acclimate.fields.diffusion.exchange.ulysses import Ulysses


def test_other_models_are_refused_and_a_pipeline_is_told_where_its_transformer_is() -> None:
    with pytest.raises(ValueError, match=r"no plan for Linear; expected a DiTTransformer2DModel, .* or CogVideoX"):
        compact(nn.Linear(2, 2), devices=2)
    pipeline = nn.Module()
    pipeline.transformer = built("dit")[0]
    with pytest.raises(ValueError, match=r"Give pipeline\.transformer"):
        compact(pipeline, devices=2)


def test_subclasses_are_of_their_family() -> None:
    class Ours(diffusers.DiTTransformer2DModel):
        pass

    model = Ours(num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=8, norm_num_groups=4).eval()
    with compact(model, devices=2) as compacted:
        call_dit(model, drawn(2, 4, 8, 8), 9)
        assert compacted.stats().evaluations == 1


def test_a_compacted_transformer_is_not_compacted_again() -> None:
    model, _ = built("flux")
    with compact(model, devices=2), pytest.raises(ValueError, match=r"Call detach\(\)"):
        compact(model, devices=2)


def test_foreign_processors_and_fused_projections_are_refused() -> None:
    model, call = built("pixart")
    plain = trajectory(call, model, 1)[0]
    attention = model.get_submodule("transformer_blocks.1.attn1")
    before = attention.processor
    attention.set_processor(SlicedAttnProcessor(1))  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="SlicedAttnProcessor; expected AttnProcessor2_0 or AttnProcessor"):
        compact(model, devices=2)
    attention.set_processor(before)  # pyright: ignore[reportCallIssue]
    assert torch.equal(trajectory(call, model, 1)[0], plain)  # nothing was changed on the way to the error
    model, _ = built("flux")
    model.fuse_qkv_projections()  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="unfuse_qkv_projections"):
        compact(model, devices=2)


def test_text_that_does_not_divide_is_refused_and_reset_makes_it_good() -> None:
    model, call = built("sd3")
    with compact(model, devices=2) as compacted:
        given = {"pooled_projections": drawn(1, 6), "timestep": torch.tensor([900.0])}
        with pytest.raises(ValueError, match=r"\[16, 7\] tokens for 2 devices"):
            model(drawn(1, 4, 8, 8), encoder_hidden_states=drawn(1, 7, 12), **given)
        with pytest.raises(ValueError, match=r"Call reset\(\) first"):
            trajectory(call, model, 1)
        compacted.reset()
        trajectory(call, model, 1)


def test_training_mode_and_masks_are_refused() -> None:
    model, call = built("pixart")
    with Compacted(model, PlainExchange()):
        with pytest.raises(ValueError, match=r"Call eval\(\)"):
            call(model.train(), drawn(2, 4, 8, 8), 900)
        model.eval()
        with pytest.raises(ValueError, match="without attention_mask"):
            model(
                drawn(1, 4, 8, 8),
                encoder_hidden_states=drawn(1, 7, 12),
                timestep=torch.tensor([9]),
                added_cond_kwargs={},
                attention_mask=torch.ones(1, 16),
            )


def test_another_batch_within_an_image_is_refused() -> None:
    model, call = built("dit")
    with compact(model, devices=2):
        call(model, drawn(2, 4, 8, 8), 900)
        with pytest.raises(ValueError, match=r"Call reset\(\) first"):
            call(model, drawn(1, 4, 8, 8), 800)


def test_arguments_that_contradict_each_other_or_are_out_of_range() -> None:
    model, _ = built("dit")
    for wrong in ({"devices": 0}, {"strategy": "rings"}, {"codec": "nothing"}, {"warmup": -1}, {"branches": 0}):
        with pytest.raises(ValueError):
            compact(model, **{"devices": 2, **wrong})
    with pytest.raises(ValueError, match=r"torch\.distributed is not set up"):
        compact(model)
    assert "forward" not in vars(model)  # all of that left the transformer as it was
    with compact(model, exchange=Simulated(2, "ring")) as compacted:
        assert compacted.exchange.size == 2


@pytest.mark.parametrize("unused", [
    {"devices": 2, "order": 2}, {"devices": 2}, {"strategy": "ring"}, {"codec": "whole"}, {"warmup": 1},
    {"timeout": 60.0}, {"feedback": True},
])  # fmt: skip
def test_what_an_exchange_brings_along_is_refused_beside_it(unused: dict[str, Any]) -> None:
    model, _ = built("dit")
    with pytest.raises(ValueError, match=f"found an exchange and {', '.join(unused)}, which"):
        compact(model, exchange=Simulated(2), **unused)


@pytest.mark.parametrize("strategy", ["stale", "ulysses", Ulysses()])
def test_a_codec_that_a_strategy_has_no_use_for_is_refused(strategy: str | Strategy) -> None:
    model, call = built("dit")
    with pytest.raises(ValueError, match=r"found codec=one_bit.*choose the strategy 'gather' or 'ring'"):
        compact(model, devices=2, strategy=strategy, codec="one_bit")
    with pytest.raises(ValueError, match="found checksum_every=2"):
        compact(model, devices=2, strategy=strategy, checksum_every=2)
    for codec in (None, "whole"):
        with compact(model, devices=2, strategy=strategy, codec=codec) as compacted:
            trajectory(call, model, 2)
            assert compacted.stats().ratio == 1


def test_a_strategy_that_is_ready_says_what_it_compresses() -> None:
    model, call = built("dit")
    with compact(model, devices=2, strategy=Ulysses("kv")) as compacted:
        trajectory(call, model, 4)
        assert compacted.stats().ratio > 1.3


def test_copies_and_pickles_are_refused_until_it_is_detached() -> None:
    model, call = built("dit")
    with compact(model, devices=2):
        pipeline = nn.ModuleDict({"transformer": model})
        for each in (model, model.get_submodule("transformer_blocks.0"), pipeline):
            with pytest.raises(ValueError, match=r"Copy it before compact\(\) or after detach\(\)"):
                copy.deepcopy(each)
            with pytest.raises(ValueError, match=r"or save its state_dict\(\)"):
                torch.save(each, io.BytesIO())
        torch.save(model.state_dict(), io.BytesIO())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not torch.equal(trajectory(call, twin, 1)[0], trajectory(call, model, 1)[0])
    torch.save(model, io.BytesIO())


def test_an_image_that_fails_is_given_up() -> None:
    model, call = built("dit")
    exchange = PlainExchange()
    with Compacted(model, exchange) as compacted, pytest.raises(ZeroDivisionError), compacted.image():
        call(model, drawn(2, 4, 8, 8), 900)
        raise ZeroDivisionError
    assert len(exchange.failed) == 1


def test_inputs_are_told_apart_to_the_bit() -> None:
    given = {"x": torch.zeros(2, 3), "more": {"text": (torch.ones(2, dtype=torch.bfloat16), 1.5)}, "none": None}
    same = {"none": None, "more": {"text": (torch.ones(2, dtype=torch.bfloat16), 1.5)}, "x": torch.zeros(2, 3)}
    others = [
        {**given, "x": torch.zeros(3, 2)},
        {**given, "x": torch.full((2, 3), 1e-40)},
        {**given, "x": torch.zeros(2, 3, dtype=torch.int32)},
        {**given, "more": {"text": (torch.ones(2), 1.5)}},
        {**given, "more": {"text": (torch.ones(2, dtype=torch.bfloat16), 1.25)}},
        {**given, "none": 0},
    ]
    assert digest(given) == digest(same)
    assert len({digest(each) for each in (given, *others)}) == 1 + len(others)
