"""What every normalisation keeps to, whatever its formula: number types, small batches, phases, rows among others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.inputs import Call
from acclimate.core.normalization import Normalization, normalizations, phase
from acclimate.normalization.decaying import DecayingStatistics
from acclimate.normalization.instance_aware import InstanceAwareStatistics
from methods.reference import small_net, stream
from normalization.test_statistics import Whole, fixture

SPECS: dict[str, str | Normalization] = {
    name: {"ttn": "ttn:constant", "dua": DecayingStatistics(copies=6, samples=9)}.get(name, name)
    for name in normalizations.classes()
}

FLAT = ("instance", "ttn", "unmix", "tema")
"""Those that leave `BatchNorm1d` to the source, as published."""

ALONE = ("source", "instance", "instance_aware", "robust", "unmix")
"""Those whose answer to a row does not depend on the other rows, given their state."""

STATELESS = ("source", "batch", "alpha", "instance", "ttn", "trimmed")
"""Those that carry nothing over."""


def adapted_to(layer: nn.Module, name: str) -> acclimate.Adapted:
    return acclimate.adapt(Whole(layer), "source", normalization=SPECS[name])


@pytest.mark.parametrize("name", SPECS)
def test_a_single_sample(name):
    """One image, then one value a channel, which no formula can make statistics of."""
    layer, x = fixture()
    adapted = adapted_to(layer, name)
    for one in (x[:1], x[1:2, :, :1], x[2:3, :, :1, :1] if name != "dua" else x[2:3]):
        for _ in range(2):
            assert bool(adapted(one).isfinite().all())


@pytest.mark.parametrize("name", SPECS)
def test_one_position(name):
    """Six samples of one position each: statistics of a sample have no variance."""
    layer, x = fixture()
    one = x[:, :, :1, :1]
    adapted = adapted_to(layer, name)
    assert bool(adapted(one).isfinite().all())
    if name in ("source", "instance", "instance_aware", "robust", "learned"):
        assert torch.allclose(adapted(one), layer(one), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_rows_of_a_table(name):
    """`BatchNorm1d` on `[N, C]`, by the source's statistics where that is what is published."""
    layer = nn.BatchNorm1d(3).double().eval()
    layer.load_state_dict(fixture()[0].state_dict())
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if name == "dua":
        with pytest.raises(ValueError, match="views of dua"):
            adapted_to(layer, name)(x)
        return
    y = adapted_to(layer, name)(x)
    assert bool(y.isfinite().all())
    if name in FLAT:
        assert torch.equal(y, layer(x))


@pytest.mark.parametrize("name", SPECS)
def test_without_weight_and_bias(name):
    """As with weight 1 and bias 0."""
    layer, x = fixture()
    bare = nn.BatchNorm2d(3, affine=False).double().eval()
    bare.running_mean, bare.running_var = layer.running_mean, layer.running_var
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    assert torch.allclose(adapted_to(bare, name)(x), adapted_to(layer, name)(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_number_types_are_kept_and_near(name, dtype):
    """Statistics are taken in single precision, so that half precision costs what rounding the image does."""
    layer, x = fixture()
    adapted = adapted_to(layer, name)
    with adapted.frozen():  # the first batch's statistics of the source, which all of them can be compared at
        wide = adapted(x)
    other = adapted_to(layer.to(dtype), name)
    with other.frozen():
        found = other(x.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.double(), wide, rtol=0.03, atol={torch.float32: 1e-4}.get(dtype, 0.06))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("what", ["view", "frozen"])
def test_views_and_frozen_answers_change_nothing(name, what):
    adapted = acclimate.adapt(small_net(), "bn", normalization=SPECS[name])
    batches = stream(3)
    adapted(batches[0])
    table = adapted.state.table
    before = {key: slot.tensor.clone() for key, slot in table.slots.items()}
    counters = dict(table.counters)
    adapted.state.begin(Call((batches[1],), {}, 0))
    with torch.no_grad():
        if what == "view":
            adapted.state.forward(batches[1], answering=False)
            adapted.state.forward(torch.cat(batches[1:]), answering=False, groups=2)
        else:
            with adapted.frozen():
                adapted(batches[1])
    assert all(torch.equal(table.slots[key].tensor, value) for key, value in before.items())
    assert table.counters == counters


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_folded_views_are_single_ones(name):
    """In the middle of a stream: two batches in one forward are normalised as if they had come one by one."""
    adapted = acclimate.adapt(small_net(), "bn", normalization=SPECS[name])
    for x in stream(2):
        adapted(x)
    parts = stream(2, seed=9)
    adapted.state.begin(Call((parts[0],), {}, 0))
    single = torch.cat([adapted.state.forward(x, answering=False) for x in parts])
    folded = adapted.state.forward(torch.cat(parts), answering=False, groups=2)
    assert torch.allclose(folded, single, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ALONE)
@torch.no_grad()
def test_rows_alone(name):
    adapted = acclimate.adapt(small_net(), "bn", normalization=SPECS[name])
    adapted(stream(1)[0])
    x = stream(2)[1]
    with phase(adapted.state.layers, "view"):
        together = adapted.module(x)
        assert torch.allclose(torch.cat([adapted.module(row) for row in x.split(1)]), together, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", STATELESS)
def test_stateless_ones_follow_the_order_of_rows(name):
    layer, x = fixture()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    adapted = adapted_to(layer, name)
    assert torch.allclose(adapted(x)[order], adapted(x[order]), rtol=0, atol=1e-12)
    assert not any(slot.kind == "statistics" for slot in adapted.state.table.slots.values())


@pytest.mark.parametrize("name", SPECS)
def test_parameters_keep_names_and_numbers(name):
    net = small_net()
    adapted = acclimate.adapt(net, "tent", normalization=SPECS[name])
    own, ours = dict(net.named_parameters()), dict(adapted.module.named_parameters())
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in ours.items()}
    assert set(adapted.state.weights) == {key for key in own if key[0] in "14"}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("grouped", [False, True])
def test_other_ranks(name, grouped):
    """Volumes, as images; `SyncBatchNorm` is normalised by this process's own batch."""
    layer, x = fixture()
    if grouped:
        kind, x = nn.SyncBatchNorm(3), x
    elif name == "dua":
        pytest.skip("its copies are made of images, which test_dua covers")
    else:
        kind, x = nn.BatchNorm3d(3), x.unsqueeze(2)
    kind.double().eval().load_state_dict(layer.state_dict())
    torch.testing.assert_close(adapted_to(kind, name)(x), adapted_to(layer, name)(fixture()[1]).view_as(x))


@pytest.mark.parametrize(("k", "name"), [(0.0, "instance"), (1e9, "source")])
def test_identities_of_instance_aware(k, name):
    """With k = 0 it is instance norm but for the divisor of the variance, 4 positions here; with large k the source."""
    layer, x = fixture()
    layer.eps = 0.0
    plain = nn.BatchNorm2d(3, eps=0.0, affine=False).double().eval()
    plain.running_mean, plain.running_var = layer.running_mean, layer.running_var
    found = acclimate.adapt(Whole(plain), "source", normalization=InstanceAwareStatistics(k=k))(x)
    expected = adapted_to(plain, name)(x)
    assert torch.allclose(found, expected * ((3 / 4) ** 0.5 if k == 0 else 1.0), rtol=0, atol=1e-9)
