"""T3, T4: SURGEON's shares by hand, and what they must not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.anatomy import everything
from acclimate.core.memory import policies
from acclimate.memory import keeper
from acclimate.memory.surgeon import SurgeonSavings
from acclimate.methods.tent import Tent

from .keeping import seeded


@pytest.fixture(autouse=True)
def everything_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "SMALL", 0)


class Three(nn.Module):
    """A convolution, a batch norm and a linear layer, all of which learn."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Linear(48, 4)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.head(self.norm(self.conv(x)).relu().flatten(1))


def images(number: int = 0, count: int = 40) -> Tensor:
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(number))


def adapting(
    model: nn.Module | None = None, policy: str | SurgeonSavings = "surgeon", **options: object
) -> acclimate.Adapted:
    method = Tent(select=everything, learning_rate=1e-3, memory=policy, normalization="batch")
    return acclimate.adapt(model or seeded(Three), method, **options)


def by_hand(model: nn.Module, x: Tensor, factor: float = 1.0, sizes: dict[str, int] | None = None) -> dict[str, float]:
    """`G_i M_i / max_j G_j M_j` of the entropy of these rows, from float64 arithmetic on torch's own gradients."""
    model = model.double().train()
    log_p = model(x.double()).log_softmax(1)
    loss = factor * -(log_p.exp() * log_p).sum(1).mean()
    weights = {name: weight for name, weight in model.named_parameters() if name.endswith("weight")}
    found = torch.autograd.grad(loss, list(weights.values()))
    g = {n: math.sqrt(float(d.square().sum()) / d.numel()) for n, d in zip(weights, found, strict=True)}
    m = sizes or {"conv.weight": 2 * 6 * 6, "norm.weight": 3 * 4 * 4, "head.weight": 48}
    scores = {n: g[n] * -math.log(m[n] / sum(m.values())) for n in weights}
    return {name: score / max(scores.values()) for name, score in scores.items()}


def shares(adapted: acclimate.Adapted) -> dict[str, float]:
    return {name: share for name, share in adapted.last.detail("share").items() if name.endswith("weight")}


def test_shares_are_those_by_hand() -> None:
    """All samples probed, all of them kept while probing: the shares are the paper's, biases have none."""
    adapted = adapting(policy=SurgeonSavings(probe=40, probe_keep=1.0, norms=32, values="float32"))
    adapted(images())
    found = adapted.last.detail("share")
    expected = by_hand(seeded(Three), images())
    for name, share in expected.items():
        assert found[name] == pytest.approx(share, rel=1e-4), name
    assert max(found.values()) == 1 and all(found[name] == 0 for name in found if name.endswith("bias"))


def test_the_scale_of_the_loss_does_not_matter() -> None:
    policy = SurgeonSavings()
    strength, sizes = torch.tensor([3e-3, 1e-4, 5e-2, 0.0]), torch.tensor([700.0, 300.0, 20.0, 0.0])
    before = torch.ones(4)
    once, again = (policy._shares(strength * factor, sizes, before) for factor in (1.0, 10.0))
    torch.testing.assert_close(once, again)
    expected = [g * -math.log(m / 1020) for g, m in ((3e-3, 700), (1e-4, 300), (5e-2, 20))]
    torch.testing.assert_close(once[:3], torch.tensor(expected) / max(expected))
    assert once[3] == 0
    for factor, least in ((0.5, 0.5), (4.0, 1.0)):
        scaled = SurgeonSavings(scale=factor)._shares(strength, sizes, before)
        torch.testing.assert_close(scaled, (once * factor).clamp(max=1))
        assert scaled.max() == least


def test_parts_of_the_importance_can_be_left_out() -> None:
    strength, sizes, before = torch.tensor([2.0, 1.0]), torch.tensor([1.0, 3.0]), torch.ones(2)
    without_memory = SurgeonSavings(memory_importance=False)._shares(strength, sizes, before)
    torch.testing.assert_close(without_memory, torch.tensor([1.0, 0.5]))
    without_gradient = SurgeonSavings(gradient_importance=False)._shares(strength, sizes, before)
    torch.testing.assert_close(without_gradient, torch.tensor([1.0, math.log(4 / 3) / math.log(4)]))


@pytest.mark.parametrize("strength", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [0.0, math.nan]])
def test_the_last_shares_are_used_again_where_gradients_say_nothing(strength: list[float]) -> None:
    before = torch.tensor([0.3, 0.7])
    found = SurgeonSavings()._shares(torch.tensor(strength), torch.tensor([5.0, 2.0]), before)
    assert torch.equal(found, before)


def test_a_single_layer_keeps_everything() -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 5)))
    adapted = adapting(model)
    adapted(images())
    assert adapted.last.detail("share") == {"1.weight": 1.0, "1.bias": 0.0}


def test_the_last_gradient_does_not_matter() -> None:
    """The second batch has the shares of a new probe alone, whatever stands in `.grad`."""
    first, second = (adapting(policy=SurgeonSavings(probe=40)) for _ in range(2))
    for adapted in (first, second):
        adapted(images(0))
    for weight in second.state.weights.values():
        weight.grad = torch.full_like(weight, 100.0)
    first(images(1)), second(images(1))
    assert first.last.detail("share") == second.last.detail("share")
    moved = seeded(Three)
    fresh = adapting(policy=SurgeonSavings(probe=40, probe_keep=1.0, norms=32, values="float32"))
    fresh(images(0))
    moved.load_state_dict(fresh.merged().state_dict(), strict=False)
    fresh(images(1))
    for name, share in by_hand(moved, images(1)).items():
        assert fresh.last.detail("share")[name] == pytest.approx(share, rel=1e-3)


def test_the_size_of_the_batch_does_not_matter_to_memory_importance() -> None:
    found = []
    for count in (10, 40, 80):
        adapted = adapting(policy=SurgeonSavings(gradient_importance=False))
        adapted(images(0, count))
        found.append(shares(adapted))
    assert found[0] == found[1] == found[2]
    costs = {n: -math.log(m / 168) for n, m in {"conv.weight": 72, "norm.weight": 48, "head.weight": 48}.items()}
    for name, cost in costs.items():
        assert found[0][name] == pytest.approx(cost / max(costs.values()), rel=1e-6)


def norms_and_head(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in everything(model).items() if name in ("n1.weight", "n2.weight")} | {
        "head.weight": model.head.weight
    }


def test_norms_are_weighed_by_their_own_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n1, self.b, self.n2 = (
                nn.Conv2d(2, 6, 1),
                nn.BatchNorm2d(6),
                nn.Conv2d(6, 4, 3),
                nn.BatchNorm2d(4),
            )
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.n2(self.b(self.n1(self.a(x)).relu())).relu().mean((2, 3)))

    method = Tent(select=norms_and_head, memory=SurgeonSavings(gradient_importance=False), normalization="batch")
    adapted = acclimate.adapt(seeded(Two), method)
    adapted(images())
    m = {"n1.weight": 6 * 36, "n2.weight": 4 * 16, "head.weight": 4}
    costs = {name: -math.log(size / sum(m.values())) for name, size in m.items()}
    for name, cost in costs.items():
        assert shares(adapted)[name] == pytest.approx(cost / max(costs.values()), rel=1e-5)


def test_tied_weights_and_modules_called_twice_count_their_inputs_together() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.again, self.head = (nn.Conv2d(2, 2, 1) for _ in range(3))
            self.again.weight = self.conv.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.again(self.conv(self.conv(x)).relu()).relu()).mean((2, 3))

    adapted = adapting(seeded(Twice), SurgeonSavings(gradient_importance=False))
    adapted(images())
    costs = {"conv.weight": -math.log(3 / 4), "head.weight": -math.log(1 / 4)}
    for name, cost in costs.items():
        assert shares(adapted)[name] == pytest.approx(cost / max(costs.values()), rel=1e-5)


def test_probes_are_drawn_again_with_the_same_seed() -> None:
    runs = []
    for seed in (0, 0, 1):
        adapted = adapting(seed=seed)
        runs.append([(adapted(images(n)), adapted.last.detail("share"))[1] for n in range(3)])
    assert runs[0] == runs[1] != runs[2]


def test_the_probe_leaves_nothing_but_shares() -> None:
    """Statistics, counters, other generators and torch's own: as if there had been no probe."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = {}
    for policy in ("quantized", SurgeonSavings(share=1.0, values="float32"), "surgeon"):
        adapted = acclimate.adapt(
            seeded(Three),
            Tent(select=everything, learning_rate=1e-30, optimizer="sgd", normalization="ema", memory=policy),
        )
        adapted.state.generator("other")
        for number in range(3):
            adapted(images(number))
        table = adapted.state.table
        slots = {n: s.tensor.clone() for n, s in table.slots.items() if not n.startswith(("memory.", "weights."))}
        others = {n: g.get_state() for n, g in table.generators.items() if not n.startswith("memory.")}
        found[str(policy)] = slots, others, dict(table.counters)
    first, *rest = found.values()
    assert first[0], "there are statistics to compare"
    for other in rest:
        assert first[2] == other[2] and first[0].keys() == other[0].keys()
        assert all(torch.equal(other[0][name], tensor) for name, tensor in first[0].items())
        assert all(torch.equal(other[1][name], state) for name, state in first[1].items())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_probe_costs_its_share_of_passes() -> None:
    policy = policies.build("surgeon")
    for batch, samples in ((1, 1), (2, 1), (20, 1), (21, 2), (200, 10), (1000, 10)):
        assert policy.samples(batch) == samples
        assert policy.passes(batch) == (samples / batch, 1)
    assert SurgeonSavings(probe=3).samples(2) == 2 and SurgeonSavings(share=0.5).passes(10) == (0.0, 0)
    adapted = adapting()
    adapted(images())
    assert adapted.last.forwards == 1 + 2 / 40


def test_nothing_is_probed_where_only_vectors_learn() -> None:
    """Shares are for inputs of weights; what backward keeps and every answer are those of `quantized`."""
    runs = []
    for policy, batches in (("surgeon", 3), ("quantized", 3), ("surgeon:faithful", 1)):
        model, seen = seeded(Three), []
        adapted = acclimate.adapt(model, "tent", memory=policy)
        adapted.module.register_forward_hook(lambda module, given, answer, seen=seen: seen.append(len(answer)))
        answers = [adapted(images(number)) for number in range(batches)]
        runs.append((answers, adapted.memory(images()).saved, seen[:batches]))
        weights = adapted.state.weights.values()
        forwards, backwards = (0.0, 0) if policy == "quantized" else policies.build(policy).passes(40, weights)
        assert adapted.last.forwards == 1 + forwards and adapted.last.backwards == 1 + backwards
        assert (policy == "surgeon:faithful") == bool(backwards)
    assert runs[0][2] == [40, 40, 40] and runs[2][2] == [10]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][0], runs[1][0], strict=True)) and runs[0][1] == runs[1][1]
    assert policies.build("surgeon").passes(40) == (2 / 40, 1), "at most, where the weights are not known"


def test_a_small_probe_keeps_everything() -> None:
    """Of 40 samples 2 are probed as they are; of 21 also 2, which is more than a twentieth, so they are pruned."""
    whole = SurgeonSavings(probe_keep=1.0, norms=32, curves=32, values="float32")
    for count, other in ((40, whole), (21, SurgeonSavings(probe_keep=0.1))):
        found, expected = adapting(), adapting(policy=other)
        found(images(0, count)), expected(images(0, count))
        for name, share in shares(expected).items():
            assert shares(found)[name] == pytest.approx(share, rel=1e-4), name
    pruned = adapting(policy=SurgeonSavings(probe_keep=0.1))
    found = adapting()
    pruned(images()), found(images())
    assert any(abs(share - shares(found)[name]) > 0.01 for name, share in shares(pruned).items())


def test_between_probes_shares_stay() -> None:
    adapted = adapting(policy=SurgeonSavings(refresh=3))
    seen = [(adapted(images(number)), shares(adapted))[1] for number in range(7)]
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "model", [Three, lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.LayerNorm(8), nn.Linear(8, 3))]
)
def test_batches_of_one(model: Callable[[], nn.Module], count: int) -> None:
    adapted = adapting(seeded(model))
    answer = adapted(images(0, count))
    assert answer.isfinite().all() and len(answer) == count
    assert all(0 <= share <= 1 for share in adapted.last.detail("share").values())


def test_a_probe_that_finds_nothing_changes_nothing() -> None:
    """Rows of one constant after the norm give zero gradients above it, and no NaN."""

    class Flat(Three):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0

    adapted = adapting(seeded(Flat))
    adapted(images())
    assert set(adapted.last.detail("share").values()) == {1.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe": 0}, {"probe_keep": 0.0}, {"probe_keep": 1.5}, {"refresh": 0}, {"scale": 0.0}, {"values": "int4"},
        {"share": 2.0}, {"limit": 0.0}, {"limit": 1.0, "faithful": True}, {"norms": 5}, {"depth": 0.0}, {"depth": 1.5},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SurgeonSavings(**wrong)


def test_shares_are_state(tmp_path: object) -> None:
    """Saved and loaded, put back by a snapshot, and 1 after a reset."""
    adapted = adapting()
    for number in range(2):
        adapted(images(number))
    tag = adapted.snapshot()
    adapted.save(tmp_path / "state")
    kept = adapted.state.table.slots["memory.shares"].tensor.clone()
    resumed = acclimate.load(seeded(Three), tmp_path / "state", method=adapted.method)
    assert torch.equal(resumed.state.table.slots["memory.shares"].tensor, kept)
    expected = [adapted(images(number)) for number in (2, 3)]
    for number, answer in zip((2, 3), expected, strict=True):
        assert torch.equal(resumed(images(number)), answer)
    assert resumed.last.detail("share") == adapted.last.detail("share")
    assert not torch.equal(adapted.state.table.slots["memory.shares"].tensor, kept)
    adapted.restore(tag)
    assert torch.equal(adapted.state.table.slots["memory.shares"].tensor, kept)
    assert torch.equal(adapted(images(2)), expected[0])
    adapted.reset()
    assert (adapted.state.table.slots["memory.shares"].tensor == 1).all()
    fresh = adapting()
    assert torch.equal(adapted(images(5)), fresh(images(5)))
    assert adapted.last.detail("share") == fresh.last.detail("share")


def test_a_limit_lowers_all_shares_by_one_factor() -> None:
    free = adapting()
    free(images())
    planned = free._keeper.planned / 40
    assert planned > 0
    for part in (0.9, 0.6):
        held = adapting(policy=SurgeonSavings(limit=planned * part))
        held(images())
        factors = {held.last.detail("share")[n] / s for n, s in shares(free).items() if s}
        assert max(factors) - min(factors) < 1e-5 and max(factors) < 1
        assert held._keeper.planned <= planned * part * 40
    loose = adapting(policy=SurgeonSavings(limit=planned * 2))
    loose(images())
    assert loose.last.detail("share") == free.last.detail("share")
