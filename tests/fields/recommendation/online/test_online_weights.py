from __future__ import annotations

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.fields.recommendation.merging.merged import merge
from acclimate.fields.recommendation.online.progressive import progressive
from acclimate.fields.recommendation.online.weights import OnlineMerge


class Column(nn.Module):
    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.place]


def online(count: int = 3, **settings: float) -> OnlineMerge:
    return OnlineMerge(merge([Column(place) for place in range(count)]), **settings)  # type: ignore[arg-type]


def test_a_step_is_the_formula() -> None:
    random = np.random.default_rng(0)
    z, y = random.normal(size=(3, 7)), random.integers(0, 2, 7).astype(float)
    model = online(rate=0.4, share=0.1, bias_rate=0.2)
    w, b = np.full(3, 1 / 3), 0.0
    for _ in range(3):
        g = 1 / (1 + np.exp(-(w @ z + b))) - y
        w = w * np.exp(-0.4 * (z * g).mean(1))
        w = 0.9 * w / w.sum() + 0.1 / 3
        b -= 0.2 * g.mean()
        model.learn(torch.from_numpy(z), torch.from_numpy(y))
    np.testing.assert_allclose(model.weights.numpy(), w, rtol=1e-12)
    assert float(model.bias) == pytest.approx(b) and int(model.learned) == 21
    np.testing.assert_allclose(model.combine(torch.from_numpy(z)).numpy(), w @ z + b)


def test_tickets_bring_labels_back_late_and_in_any_order() -> None:
    x = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    y = torch.randint(2, (4, 6), generator=torch.Generator().manual_seed(1)).float()
    late, straight = online(), online()
    tickets = [late.ask(part)[1] for part in x]
    for place in (2, 0, 3, 1):
        assert late.tell(tickets[place], y[place])
        straight.learn(x[place].T, y[place])
    assert torch.equal(late.weights, straight.weights)
    assert not late.tell(tickets[0], y[0])  # learned once


def test_what_is_not_known_teaches_nothing() -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([1.0, 0.0, float("nan"), 1.0, float("nan")])
    some, all_known = online(), online()
    some.learn(x, y)
    all_known.learn(x[:, [0, 1, 3]], y[[0, 1, 3]])
    assert torch.equal(some.weights, all_known.weights) and int(some.learned) == 3
    broken = x.clone()
    broken[1, 0] = float("inf")
    before = some.weights.clone()
    some.learn(broken[:, :1], y[:1])
    assert torch.equal(some.weights, before)
    _, ticket = some.ask(x.T)
    with pytest.raises(ValueError, match=r"labels \[2\] for 5 rows"):
        some.tell(ticket, y[:2])
    with pytest.raises(ValueError, match="0, 1, or NaN"):
        some.tell(ticket, torch.full((5,), 0.5))
    assert some.tell(ticket, y)


def test_old_rows_are_forgotten_beyond_the_limit() -> None:
    model = online(remembered=10)
    tickets = [model.ask(torch.zeros(4, 3))[1] for _ in range(4)]
    assert model.forgotten == 8
    assert [model.tell(ticket, torch.ones(4)) for ticket in tickets] == [False, False, True, True]


def test_what_was_learned_is_in_the_state() -> None:
    model, again = online(), online()
    model.learn(torch.randn(3, 9), torch.ones(9))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.weights, model.weights) and torch.equal(again.bias, model.bias)


def stream(rows: int = 4000) -> tuple[Tensor, Tensor]:
    """Member 0 knows the first half, member 1 the second, member 2 nothing."""
    generator = torch.Generator().manual_seed(0)
    truth = 2 * torch.randn(rows, generator=generator)
    labels = torch.bernoulli(truth.sigmoid(), generator=generator)
    noise = 2 * torch.randn(3, rows, generator=generator)
    each = noise.clone()
    each[0, : rows // 2], each[1, rows // 2 :] = truth[: rows // 2], truth[rows // 2 :]
    return each, labels


def test_no_answer_depends_on_a_label_that_is_not_out() -> None:
    each, labels = stream(600)
    whole = progressive(online(), each, labels, delay=100, batch_size=20)
    for place in (0, 155, 420):
        other = labels.clone()
        other[place:] = 1 - other[place:]
        found = progressive(online(), each, other, delay=100, batch_size=20)
        same = (whole.logits == found.logits).nonzero()[:, 0]
        changed = (whole.logits != found.logits).nonzero()[:, 0]
        assert len(same) >= place + 100 and int(changed.min()) >= place + 100
        assert int(changed.min()) < place + 140  # and it does depend on those that are


def test_weights_follow_the_member_that_is_right() -> None:
    each, labels = stream()
    moving = progressive(online(rate=0.3), each, labels, delay=200)
    frozen = progressive(online(rate=0.0, bias_rate=0.0, share=0.0), each, labels, delay=200)
    torch.testing.assert_close(frozen.logits, each.mean(0))
    assert moving.weights[1900].argmax() == 0 and moving.weights[-1].argmax() == 1

    def loss(logits: Tensor) -> float:
        return float(nn.functional.binary_cross_entropy_with_logits(logits, labels))

    assert loss(moving.logits) < loss(frozen.logits) - 0.05


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="logit_mean"):
        OnlineMerge(merge([Column(0)], "prob_mean"))
    with pytest.raises(ValueError, match="share"):
        online(share=2.0)
    with pytest.raises(ValueError, match="delay"):
        progressive(online(), torch.zeros(3, 5), torch.zeros(5), delay=-1)
    with pytest.raises(ValueError, match=r"\[M, N\] and \[N\]"):
        progressive(online(), torch.zeros(3, 5), torch.zeros(4), delay=0)


def test_tickets_of_another_process_are_not_known() -> None:
    x = torch.zeros(6, 3)
    before, after = online(), online()
    old, new = before.ask(x)[1], after.ask(x)[1]
    assert old != new
    assert not after.tell(old, torch.ones(6)) and after.tell(new, torch.ones(6))


def test_a_member_that_is_not_finite_is_left_out_of_that_row() -> None:
    x = torch.tensor([[1.0, 2.0, 6.0], [1.0, float("nan"), 6.0], [float("inf"), float("nan"), 6.0], [float("nan")] * 3])
    model = online()
    model.weights.copy_(torch.tensor([0.5, 0.25, 0.25]))
    expected = torch.tensor([2.5, (0.5 * 1 + 0.25 * 6) / 0.75, 6.0, float("nan")])
    torch.testing.assert_close(model(x), expected, equal_nan=True)
    torch.testing.assert_close(model.ask(x)[0], expected, equal_nan=True)


class Kept(Column):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, None]


def test_members_of_one_column_are_members() -> None:
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 1, 1, 0, 1, 0])
    flat, columns = online(), OnlineMerge(merge([Kept(place) for place in range(3)]))
    for model in (flat, columns):
        assert model.tell(model.ask(x)[1], y)
    assert torch.equal(flat.weights, columns.weights) and torch.equal(flat(x), columns(x))
    with pytest.raises(ValueError, match=r"expected \[2, B\]"):
        OnlineMerge(merge([nn.Linear(3, 2), nn.Linear(3, 2)])).ask(x)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_keep_their_type_whatever_members_become(kind: torch.dtype) -> None:
    x, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.ones(6)
    plain, model = online(), online()
    for each in (plain, model):
        each.learn(x.T, y)
    model.to(kind)
    assert model.weights.dtype == model.bias.dtype == torch.float64 and torch.equal(model.weights, plain.weights)
    answer, ticket = model.ask(x.to(kind))
    assert answer.dtype == kind and model.tell(ticket, y) and int(model.learned) == 12


def test_a_question_takes_no_longer_where_many_wait() -> None:
    class Counted(dict[int, Tensor]):
        """Cannot be walked through."""

        def values(self) -> Any:
            raise AssertionError("all rows were looked at")

        items = values

    model = online()
    model._awaited._kept = Counted()
    for _ in range(20):
        model.ask(torch.zeros(1, 3))
    assert model._awaited.rows == 20


def test_several_threads_may_ask_and_tell() -> None:
    model = online(remembered=50)
    one, tickets, told = torch.zeros(1, 3), [], []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        for _ in range(100):
            tickets.append(model.ask(one)[1])
            told.append(model.tell(tickets[-1], torch.ones(1)))

    try:
        with ThreadPoolExecutor(6) as pool:
            for each in [pool.submit(work) for _ in range(6)]:
                each.result()
    finally:
        sys.setswitchinterval(before)
    assert len(set(tickets)) == 600
    assert int(model.learned) == sum(told) and sum(told) + model.forgotten + model._awaited.rows == 600


def test_a_copy_has_what_the_first_waits_for() -> None:
    model = online()
    _, ticket = model.ask(torch.zeros(2, 3))
    again = copy.deepcopy(model)
    assert again.tell(ticket, torch.ones(2)) and model.tell(ticket, torch.ones(2))


def test_rates_are_finite() -> None:
    for settings in ({"rate": float("inf")}, {"bias_rate": float("inf")}, {"rate": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            online(**settings)
