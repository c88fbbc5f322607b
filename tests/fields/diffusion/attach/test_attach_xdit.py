"""xDiT's long-context attention, by a stand-in that is called as xDiT calls it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

pytest.importorskip("diffusers")

import torch
from plain_exchange import PlainExchange
from tiny_transformers import drawn
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from acclimate.fields.diffusion.attach.xdit import CompactedXDiT, LongContextAttention


class StandIn:
    """Holds a function for the ring and calls it with the arguments that xDiT gives it."""

    def __init__(self) -> None:
        self.ring_attn_fn = scaled_dot_product_attention

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.ring_attn_fn(
            query,
            key,
            value,
            dropout_p=0.0,
            softmax_scale=0.5,
            causal=False,
            group=None,
            joint_tensor_key=None,
            joint_tensor_value=None,
            joint_strategy="none",
        )


class Processor:
    def __init__(self) -> None:
        self.hybrid_seq_parallel_attn = StandIn()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.processor = Processor()

    def forward(self, states: Tensor) -> Tensor:
        return self.processor.hybrid_seq_parallel_attn(states, states, states)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Attention(), Attention()])

    def forward(self, states: Tensor, timestep: float, class_labels: Tensor) -> Tensor:
        for block in self.blocks:
            states = block(states)
        return states


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("xfuser.core.long_ctx_attention")
    module.xFuserLongContextAttention = StandIn  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("xfuser", "xfuser.core"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_without_xdit_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xfuser", None)
    with pytest.raises(ImportError, match="pip install xfuser"):
        CompactedXDiT(Transformer().eval(), PlainExchange())


@pytest.mark.usefixtures("installed")
def test_attentions_of_xdit_go_through_the_exchange_until_detached() -> None:
    model, states = Transformer().eval(), drawn(1, 6, 2, 4)
    rings = [block.processor.hybrid_seq_parallel_attn.ring_attn_fn for block in model.blocks]
    exchange = PlainExchange()
    with CompactedXDiT(model, exchange) as compacted, compacted.image():
        found = model(states, timestep=9.0, class_labels=torch.tensor([3]))
        model(states, timestep=9.0, class_labels=torch.tensor([7]))
    expected = states
    for _ in range(2):
        swapped = expected.transpose(1, 2).double()
        weights = torch.softmax(0.5 * swapped @ swapped.mT, -1)
        expected = (weights @ swapped).transpose(1, 2)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert exchange.seen == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [block.processor.hybrid_seq_parallel_attn.ring_attn_fn for block in model.blocks] == rings


@pytest.mark.usefixtures("installed")
def test_a_transformer_that_xdit_has_not_wrapped_is_refused() -> None:
    with pytest.raises(ValueError, match="Let xDiT wrap the pipeline first"):
        CompactedXDiT(nn.Linear(1, 1).eval(), PlainExchange())


def test_causal_attention_and_text_held_by_all_ranks_are_refused() -> None:
    attention, states = LongContextAttention(PlainExchange(), 0), drawn(1, 4, 1, 4)
    with pytest.raises(ValueError, match="causal"):
        attention(states, states, states, causal=True)
    with pytest.raises(ValueError, match="joint_tensor_key"):
        attention(states, states, states, joint_tensor_key=states)
