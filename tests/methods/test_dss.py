"""The reconstruction of DSS against a float64 oracle of the equations that its page states."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import acclimate
from acclimate.methods.cotta import CoTTA
from acclimate.methods.dss import DSS
from methods.reference import by_batch, small_net, stream


def shaded(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * (0.4 + torch.rand(1, generator=generator, dtype=x.dtype))


def oracle(batches: list[Tensor], decay: float, negative: float) -> tuple[list[Tensor], list[float], list[int]]:
    """Gate always open, nothing restored; rows one by one."""
    student = by_batch(small_net())
    teacher = copy.deepcopy(student)
    views = acclimate.adapt(small_net(), DSS()).state.generator("views")
    opt = torch.optim.Adam(student.parameters(), lr=1e-2)
    tau, answers, taus, counts = 1 / 4, [], [], []
    for x in batches:
        zs = student(x)
        with torch.no_grad():
            zt = sum(teacher(shaded(x, views)) for _ in range(3)) / 3
        q, p = zt.softmax(1), zs.softmax(1)
        tau = decay * tau + (1 - decay) * float(q.max(1).values.mean())
        losses = []
        for qb, pb in zip(q, p, strict=True):
            if qb.max() >= tau:
                losses.append(-(qb * pb.log()).sum())
            else:
                losses.append(-negative * torch.log(1 - pb[qb.argmin()]))
        opt.zero_grad()
        torch.stack(losses).mean().backward()
        opt.step()
        with torch.no_grad():
            for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
                t.copy_(0.9 * t + 0.1 * s)
        answers.append(zt)
        taus.append(tau)
        counts.append(sum(bool(qb.max() >= tau) for qb in q))
    return answers, taus, counts


@pytest.mark.parametrize(("decay", "negative"), [(0.5, 1.0), (0.0, 0.3), (0.9, 1.0)])
def test_equals_the_oracle(decay, negative):
    batches = stream(6)
    answers, taus, counts = oracle(batches, decay, negative)
    if decay < 0.9:
        assert any(0 < count < 12 for count in counts)
    method = DSS(
        decay=decay,
        negative=negative,
        learning_rate=1e-2,
        momentum=0.9,
        restoration=0.0,
        threshold=1.0,
        copies=3,
        views=shaded,
    )
    adapted = acclimate.adapt(small_net(), method)
    for x, expected, tau, count in zip(batches, answers, taus, counts, strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
        assert adapted.last.values["tau"] == pytest.approx(tau)
        assert adapted.last.values["selected"] == count
    assert float(adapted.state["tau"]) == pytest.approx(taus[-1])


def test_without_doubt_it_is_cotta():
    """With a threshold that stays at 1/C every row is sure, and the loss is CoTTA's."""
    options = {"copies": 3, "threshold": 1.0, "learning_rate": 1e-2}
    ours, theirs = (acclimate.adapt(small_net(), m) for m in (DSS(decay=1.0, **options), CoTTA(**options)))
    for x in stream(4):
        assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_the_negative_loss_is_finite_where_the_student_is_sure_of_the_wrong_class():
    """`log(1 - p)` of a p that rounds to 1."""
    state = acclimate.adapt(small_net(), DSS()).state
    state["tau"].fill_(1.0)
    student = torch.tensor([[200.0, 0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = DSS(decay=1.0).compare(state, student, torch.tensor([[-1.0, 0.0, 0.0, 0.5]]))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(200 - torch.tensor(3.0).log().item())
    assert gradient[0].tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


def test_the_threshold_starts_at_one_over_the_classes():
    adapted = acclimate.adapt(small_net(classes=5), "dss")
    assert float(adapted.state["tau"]) == pytest.approx(1 / 5)
    adapted(stream(1)[0])
    adapted.reset()
    assert float(adapted.state["tau"]) == pytest.approx(1 / 5)


def test_it_says_what_it_is():
    """The page and the card tell users that the equations are not the paper's."""
    page = " ".join((DSS.__doc__ or "").split())
    assert page.startswith("A reconstruction")
    assert "Published are the name" in page
    assert "is assumed" in page
    assert "reconstruction" in DSS.card.summary
    assert "assumed" in DSS.card.paper


def test_presets_are_those_of_cotta():
    for name, settings in CoTTA.presets.items():
        preset = DSS.preset(name)
        assert all(getattr(preset, key) == value for key, value in settings.items() if key != "symmetric")


@pytest.mark.parametrize("options", [{"decay": 1.5}, {"negative": -1}, {"copies": 0}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        DSS(**options)
