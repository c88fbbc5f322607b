from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from acclimate.fields.recommendation.merging.choosing import fit_weights, greedy
from acclimate.fields.recommendation.merging.how import HOW, WEIGHTED, merge_logits, shares
from acclimate.fields.recommendation.merging.merged import merge

members = st.integers(1, 5).flatmap(lambda m: arrays(np.float64, (m, 12), elements=st.floats(-30, 30)))


def losses(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.logaddexp(0, z) - y * z).mean(-1)


@given(members, st.integers(0, 2**12 - 1))
def test_a_merged_log_loss_is_at_most_the_mean_one(z: np.ndarray, bits: int) -> None:
    y = np.array([bits >> place & 1 for place in range(12)], dtype=float)
    for how in WEIGHTED:
        merged = merge_logits(torch.from_numpy(z), how).numpy()
        assert losses(merged, y) <= losses(z, y).mean() + 1e-9


@given(members)
def test_order_and_copies_change_nothing(z: np.ndarray) -> None:
    stacked = torch.from_numpy(z)
    for how in HOW:
        once = merge_logits(stacked, how)
        torch.testing.assert_close(merge_logits(stacked.flip(0), how), once)
        torch.testing.assert_close(merge_logits(stacked[:1].expand(4, -1), how), stacked[0])


def test_probabilities_are_averaged() -> None:
    z = torch.tensor([[-2.0, 40.0, -900.0], [1.0, -3.0, -800.0]], dtype=torch.float64)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    p = weights @ z.sigmoid()
    found = merge_logits(z, "prob_mean", weights)
    torch.testing.assert_close(found[:2].sigmoid(), p[:2])
    assert float(found[2]) == pytest.approx(-800 + np.log(0.75))  # where p itself is 0 in floating point
    classes = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(merge_logits(classes, "prob_mean").softmax(1), classes.softmax(2).mean(0))
    torch.testing.assert_close(
        merge_logits(classes, "prob_mean", torch.tensor([0.0, 1.0, 0.0])).softmax(1), classes[1].softmax(1)
    )


def test_a_merged_model_is_a_module() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    one = merge([first, second], weights=[3, 1])
    x = torch.randn(5, 3)
    torch.testing.assert_close(one(x), 0.75 * first(x) + 0.25 * second(x))
    assert not one.training and len(list(one.parameters())) == 4
    assert "weights" in one.state_dict()


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match="no members"):
        merge([])
    with pytest.raises(ValueError, match="member 1 is of type str"):
        merge([nn.Linear(2, 2), "x"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"Linear \[1, 2\], Linear \[1, 3\]"):
        merge([nn.Linear(2, 2), nn.Linear(2, 3)])(torch.zeros(1, 2))
    for weights in ([1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="weights"):
            merge([nn.Linear(2, 2)] * 2, weights=weights)
    with pytest.raises(ValueError, match="median takes no weights"):
        merge([nn.Linear(2, 2)] * 2, "median", weights=[1, 2])
    with pytest.raises(ValueError, match="how must be one of"):
        merge([nn.Linear(2, 2)], "sum")
    assert shares(torch.tensor([1.0, 3.0]), 2).tolist() == [0.25, 0.75]


def noisy(count: int, rows: int, noise: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = 2 * torch.randn(rows, generator=generator, dtype=torch.float64)
    labels = torch.bernoulli(truth.sigmoid(), generator=generator)
    each = torch.tensor(noise, dtype=torch.float64)[:, None]
    return truth + each * torch.randn(count, rows, generator=generator, dtype=torch.float64), labels


@pytest.mark.parametrize("how", WEIGHTED)
def test_fitted_weights_are_the_best_on_a_fine_grid(how: str) -> None:
    z, y = noisy(3, 800, [0.5, 1.0, 3.0])
    fitted = fit_weights(z, y, how)
    assert float(fitted.sum()) == pytest.approx(1) and bool((fitted >= 0).all())

    def loss(weights: list[float]) -> float:
        return float(losses(merge_logits(z, how, torch.tensor(weights, dtype=torch.float64)).numpy(), y.numpy()))

    grid = min(loss([a / 40, b / 40, (40 - a - b) / 40]) for a in range(41) for b in range(41 - a))
    assert loss(fitted.tolist()) <= grid + 1e-9


def test_greedy_takes_the_best_first_and_keeps_to_its_budget() -> None:
    z, y = noisy(4, 2000, [2.0, 0.8, 0.8, 6.0])
    chosen = greedy(z, y)
    alone = losses(z.numpy(), y.numpy())
    assert chosen[0] == int(alone.argmin()) and set(chosen[:2]) == {1, 2} and 3 not in chosen
    assert greedy(z, y, costs=[1, 5, 2, 1], budget=3)[0] == 2
    assert sum([1, 5, 2, 1][each] for each in greedy(z, y, costs=[1, 5, 2, 1], budget=3)) <= 3
    with pytest.raises(ValueError, match="cheapest member costs 1"):
        greedy(z, y, costs=[1, 5, 2, 1], budget=0.5)
    with pytest.raises(ValueError, match="costs"):
        greedy(z, y, costs=[1, 2])
    bad = z.clone()
    bad[2, 5] = float("inf")
    with pytest.raises(ValueError, match="member 2"):
        greedy(bad, y)
    for budget in (float("nan"), -1.0, 0.0):
        with pytest.raises(ValueError, match="budget"):
            greedy(z, y, budget=budget)


def test_a_budget_is_kept_as_it_is_on_paper() -> None:
    z, y = noisy(3, 2000, [0.8, 0.8, 0.8])
    for costs, budget in (([0.1, 0.2, 9.0], 0.3), ([0.7, 0.1, 9.0], 0.8), ([0.1, 0.7, 0.1], 0.9)):
        assert len(greedy(z, y, costs=costs, budget=budget)) == sum(cost < 1 for cost in costs)
    assert len(greedy(z, y, costs=[1.0, 1.0, 1.0], budget=2.99)) == 2


@pytest.mark.parametrize("choose", [fit_weights, greedy])
def test_labels_are_nought_or_one(choose: Any) -> None:
    z, y = noisy(2, 50, [0.8, 0.8])
    for wrong in (y * 2 - 1, y * float("nan"), y * 2, y * 0.5 + 0.25):
        with pytest.raises(ValueError, match="labels"):
            choose(z, wrong)
    choose(z, y.bool())


def test_classes_are_the_second_axis_of_an_answer() -> None:
    z = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(merge_logits(z, "prob_mean").softmax(1), z.softmax(2).mean(0))
    one = z[:, :, :1]
    torch.testing.assert_close(merge_logits(one, "prob_mean").sigmoid(), one.sigmoid().mean(0))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_medians_of_any_type(kind: torch.dtype) -> None:
    z = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).to(kind)
    found = merge_logits(z, "median")
    assert found.dtype == kind
    np.testing.assert_allclose(found.double().numpy(), np.median(z.double().numpy(), 0), rtol=0.01, atol=1e-3)
    big = torch.full((2, 1), 60000.0, dtype=kind)
    assert bool(torch.isfinite(merge_logits(big, "median")).all())
    assert bool(merge_logits(torch.tensor([[1.0], [float("nan")], [2.0]], dtype=kind), "median").isnan())
