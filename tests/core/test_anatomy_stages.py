"""Blocks, stages and heads are found by structure, whatever the modules are called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from acclimate.anatomy import (
    affine_norms,
    all_but_head,
    blocks,
    everything,
    first_stage,
    shallow_norms,
    stages,
)
from acclimate.models import cifar10_resnet20
from acclimate.models.transformer import small_vit
from conformance.models import MODELS


class Unit(nn.Module):
    """A pre-activation block with an inner module, under names that say nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.BatchNorm2d(width)
        self.b = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x))


def nameless(depths: tuple[int, ...]) -> nn.Module:
    """A stem, stages of blocks, a final norm and a head, all in one list."""
    parts = [nn.Conv2d(3, 4, 3), *(nn.Sequential(*(Unit(4) for _ in range(depth))) for depth in depths)]
    return nn.Sequential(*parts, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_a_residual_network_has_its_stages() -> None:
    net = cifar10_resnet20()
    assert [list(stage) for stage in stages(net)] == [[f"layer{s}.{b}" for b in range(3)] for s in (1, 2, 3)]
    assert list(blocks(net)) == [f"layer{s}.{b}" for s in (1, 2, 3) for b in range(3)]


def test_the_first_stage_is_its_convolutions_and_norms() -> None:
    chosen = first_stage(cifar10_resnet20())
    assert len(chosen) == 3 * 6 and all(name.startswith("layer1.") for name in chosen)
    assert sum(p.numel() for p in chosen.values()) == 3 * 2 * (16 * 16 * 9 + 2 * 16)


def test_shallow_norms_leave_out_the_last_stage_and_what_follows() -> None:
    net = cifar10_resnet20()
    assert set(shallow_norms(net)) == {n for n in affine_norms(net) if not n.startswith("layer3.")}
    deep = nameless((1, 2, 1))
    assert set(affine_norms(deep)) - set(shallow_norms(deep)) == {
        f"{name}.{kind}" for name in ("3.0.a", "3.0.b.1", "4") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(("depth", "kept"), [(4, 3), (8, 6), (12, 9)])
def test_one_container_of_blocks_is_cut_into_quarters(depth: int, kept: int) -> None:
    net = nameless((depth,))
    assert [len(stage) for stage in stages(net)] == [depth // 4] * 4
    inside = {name.split(".")[1] for name in shallow_norms(net)}
    assert inside == {str(number) for number in range(kept)}, "the last quarter stays, and the final norm"


def test_a_vision_transformer_has_blocks() -> None:
    net = small_vit()
    found = blocks(net)
    assert len(found) >= 2 and len({type(block) for block in found.values()}) == 1
    final = [name for name in affine_norms(net) if not name.startswith(tuple(found))]
    assert final and not set(final) & set(shallow_norms(net)), "the norm after the last block stays"


def test_torch_s_own_transformer_layers_are_blocks() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    net = nn.Sequential(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), nn.LayerNorm(16), nn.Linear(16, 2))
    assert list(blocks(net)) == [f"0.layers.{number}" for number in range(4)]
    kept = set(shallow_norms(net))
    assert kept == {n for n in affine_norms(net) if n.startswith(("0.layers.0", "0.layers.1", "0.layers.2"))}
    assert len(kept) == 12


@pytest.mark.parametrize("name", ["batch_norm", "mlp", "no_norm"])
def test_a_model_in_which_nothing_repeats_has_no_blocks(name: str) -> None:
    net = MODELS[name][0]()
    assert not blocks(net) and not stages(net) and not first_stage(net)
    assert list(shallow_norms(net)) == list(affine_norms(net))


def test_everything_is_the_head_and_all_but_it() -> None:
    net = cifar10_resnet20()
    assert set(everything(net)) - set(all_but_head(net)) == {"linear.weight", "linear.bias"}
    assert set(everything(net)) == {name for name, _ in net.named_parameters()}
    net.register_parameter("count", nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False))
    assert "count" not in everything(net)
