"""NCTTA: whole steps against a literal oracle, what is learned from, degenerate batches, counted passes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.methods.nctta import NCTTA
from methods.reference import entropy, small_net, stream
from methods.selected import NETS, Counted, affine, exported, group_net, nearest, oracle_net, same, uneven

RATE = 1e-3
SETTINGS = {"learning_rate": RATE, "entropy_coeff": 0.7, "margin_coeff": 0.5, "top_k": 3, "alpha": 0.4, "scale": 2.0}


def row_loss(h: Tensor, z: Tensor, w: Tensor, *, detach: bool) -> Tensor:
    """`lambda (H + scale N)` of one row, term by term, with the settings above."""
    p = z.softmax(0)
    doubt = -(p * p.log()).sum()
    u, v = h / h.norm(), w / w.norm(dim=1, keepdim=True)
    s = v @ u
    chosen = p.argsort(descending=True)[:3]
    a = 1 - s[chosen]
    t = (a - a.mean()) / ((a - a.mean()).square().mean().sqrt() + 1e-8)
    q = 0.6 * (-t).softmax(0) + 0.4 * (p[chosen] + 1e-8) / (p[chosen] + 1e-8).sum()
    q = (q + 1e-8) / (q + 1e-8).sum()
    q = q.detach() if detach else q
    pull = -((q * s[chosen].exp()).sum() / s.exp().sum()).log()
    distance = (u - v[z.argmax()]).norm()
    weight = math.exp(0.5 * math.log(len(w)) - float(doubt.detach())) + 5 / (1 + float(distance.detach()))
    return weight * (doubt + 2 * pull)


def oracle(net: nn.Module, batches: list[Tensor], *, detach: bool = False) -> list[dict[str, object]]:
    """Steps with torch's own SGD; the head is what follows the features."""
    opt = torch.optim.SGD(affine(net), lr=RATE, momentum=0.9, nesterov=True)
    log: list[dict[str, object]] = []
    for x in batches:
        h = net[:-1](x)
        z = net[-1](h)
        sure = [i for i, doubt in enumerate(entropy(z)) if doubt < 0.7 * math.log(z.shape[1])]
        log.append({"answer": z.detach().clone(), "chosen": len(sure)})
        if sure:
            terms = [row_loss(h[i], z[i], net[-1].weight.detach(), detach=detach) for i in sure]
            opt.zero_grad()
            (sum(terms) / len(terms)).backward()
            opt.step()
    return log


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("kind", NETS)
def test_equals_the_oracle(kind, detach):
    """Selected mean, weights without gradient, answers from before the update, Nesterov momentum."""
    twin, batches = oracle_net(kind), uneven(6)
    log = oracle(twin, batches, detach=detach)
    adapted = acclimate.adapt(NETS[kind](), NCTTA(detach_target=detach, **SETTINGS))
    before = oracle_net(kind)
    for x, step in zip(batches, log, strict=True):
        assert torch.allclose(adapted(x), step["answer"], rtol=0, atol=1e-9)
        assert adapted.last.selected == step["chosen"]
    assert nearest(adapted, twin) < 1e-9
    assert nearest(adapted, before) > 1e-3
    assert any(0 < step["chosen"] < 12 for step in log)


@pytest.mark.parametrize("kind", NETS)
def test_only_norms_change(kind):
    net = NETS[kind]()
    adapted = acclimate.adapt(net, NCTTA(**SETTINGS))
    before = {name: tensor.clone() for name, tensor in adapted.module.state_dict().items()}
    for x in uneven(4):
        adapted(x)
    norms = {name for name, m in net.named_modules() if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm))}
    for name, tensor in adapted.module.state_dict().items():
        owner, _, kind_of = name.rpartition(".")
        moves = owner in norms and kind_of in ("weight", "bias")
        assert torch.equal(tensor, before[name]) != moves, name
    assert torch.equal(adapted.module[-1].weight, net[-1].weight)


def test_rows_that_are_not_sure_do_not_count():
    """On a model without batch statistics, the loss is that of the sure rows alone, however often others come."""
    (x,) = uneven(1)
    net = group_net()
    sure = entropy(net(x)) < 0.7 * math.log(4)
    assert 1 < int(sure.sum()) < len(x)
    found = []
    for rows in (x, torch.cat([x, x[~sure], x[~sure]]), x[sure]):
        adapted = acclimate.adapt(net, NCTTA(**SETTINGS))
        adapted(rows)
        found.append((adapted.last.loss, torch.cat([w.detach().flatten() for w in adapted.state.weights.values()])))
    for loss, weights in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-10)
        assert torch.allclose(weights, found[0][1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("options", [{"entropy_coeff": 0.0}, {"entropy_threshold": 1e-12}])
def test_nothing_is_learned_where_nothing_is_sure(kind, options):
    adapted = acclimate.adapt(NETS[kind](), NCTTA(**{**SETTINGS, **options}))
    before = exported(adapted)
    for x in uneven(3):
        assert adapted(x).isfinite().all()
        assert not adapted.last.updated
        assert adapted.last.reason == "no answer was sure"
        assert adapted.last.selected == 0
    share = "method.selected_share"
    after = exported(adapted)
    assert same({k: v for k, v in after.items() if k != share}, {k: v for k, v in before.items() if k != share})
    assert adapted.state.batches == 3


def test_an_empty_selection_leaves_the_momentum():
    """A batch without sure rows between two others: the optimiser goes on as if it had not come."""
    batches = uneven(3)
    flat = torch.full_like(batches[0], 0.5) + 1e-3 * batches[1]
    states = []
    for given in (batches[:2], [batches[0], flat, batches[1]]):
        adapted = acclimate.adapt(group_net(), NCTTA(**{**SETTINGS, "entropy_coeff": 0.6}))
        learned = []
        for x in given:
            adapted(x)
            learned.append(adapted.last.updated)
        states.append((learned, exported(adapted)))
    assert [learned for learned, _ in states] == [[True, True], [True, False, True]]
    assert same(*(tensors for _, tensors in states))


def test_thresholds_scale_with_the_classes_and_can_be_given():
    """0.4 ln K by default; the literal constants of the released code hold for any number of classes."""
    x = uneven(1)[0]
    (net, doubt) = (group_net(classes=9), entropy(group_net(classes=9)(x)))
    for options, limit in (
        ({}, 0.4 * math.log(9)),
        ({"entropy_coeff": 0.6}, 0.6 * math.log(9)),
        ({"entropy_threshold": 1.7}, 1.7),
        ({"entropy_threshold": NCTTA.preset("imagenet").entropy_threshold}, 0.4 * math.log(1000)),
    ):
        adapted = acclimate.adapt(net, NCTTA(**options))
        adapted(x)
        assert adapted.last.selected == int((doubt < limit).sum())
    weights = []
    for options in ({}, {"margin_coeff": 0.9}, {"margin_threshold": 0.9 * math.log(9)}):
        adapted = acclimate.adapt(net, NCTTA(entropy_coeff=1.0, **options))
        adapted(x)
        weights.append(adapted.last.values["weight"])
    shift = float(((0.9 * math.log(9) - doubt).exp() - (0.4 * math.log(9) - doubt).exp()).detach().mean())
    assert weights[1] - weights[0] == pytest.approx(shift, abs=1e-9)
    assert weights[2] == pytest.approx(weights[1], abs=1e-12)


@pytest.mark.parametrize(
    ("classes", "k", "alpha"), [(2, 1, 0.5), (3, 2, 0.5), (10, 3, 0.5), (100, 5, 0.5), (1000, 10, 0.3)]
)
def test_candidates_and_confidence_by_class_count(classes, k, alpha):
    """What it does by default equals what it does with the numbers that its page names, and differs from others."""
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(**options: object) -> float:
        adapted = acclimate.adapt(small_net(classes=classes), NCTTA(entropy_coeff=1.0, **options))
        adapted(x)
        return adapted.last.values["alignment"]

    assert loss() == loss(top_k=k, alpha=alpha)
    assert loss() != loss(top_k=k + 1, alpha=alpha)
    assert k == 1 or loss() != loss(top_k=k, alpha=0.4)


def test_more_candidates_than_classes():
    found = []
    for k in (4, 10):
        adapted = acclimate.adapt(small_net(), NCTTA(**{**SETTINGS, "top_k": k}))
        for x in stream(2):
            adapted(x)
        assert adapted.last.updated
        found.append(exported(adapted))
    assert same(*found)


def test_single_rows():
    """Without batch statistics a batch of one is learned from; with them it is answered as ever, and finite."""
    adapted = acclimate.adapt(group_net(), NCTTA(**{**SETTINGS, "entropy_coeff": 1.0}))
    assert torch.allclose(adapted(uneven(1)[0][:1]), group_net()(uneven(1)[0][:1]))
    assert adapted.last.updated
    adapted = acclimate.adapt(small_net(), NCTTA(**{**SETTINGS, "entropy_coeff": 1.0}))
    for x in stream(3, size=1):
        assert adapted(x).isfinite().all()
    assert all(weight.isfinite().all() for weight in adapted.state.weights.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision(dtype):
    """Near what it learns in float64: the terms are computed in float32."""
    x = uneven(1)[0]
    losses = []
    for kind in (torch.float64, dtype):
        adapted = acclimate.adapt(group_net().to(kind), NCTTA(**{**SETTINGS, "entropy_coeff": 1.0}))
        answers = adapted(x.to(kind))
        assert answers.dtype == kind
        assert adapted.last.updated
        losses.append(adapted.last.loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_autocast_computes_the_terms_in_float32(monkeypatch):
    from acclimate.methods import nctta

    kinds: list[torch.dtype] = []
    whole = nctta.alignment_loss
    monkeypatch.setattr(nctta, "alignment_loss", lambda *a, **k: kinds.append(a[0].cosines.dtype) or whole(*a, **k))
    adapted = acclimate.adapt(group_net().float(), NCTTA(**{**SETTINGS, "entropy_coeff": 1.0}))
    with torch.autocast("cpu", torch.bfloat16):
        adapted(uneven(1)[0].float())
    assert kinds == [torch.float32]
    assert adapted.last.updated


def test_counted_passes():
    """One forward with a graph; where rows are independent and few are sure, those alone a second time."""
    for kind in NETS:
        net = Counted(NETS[kind]())
        adapted = acclimate.adapt(net, NCTTA(**SETTINGS))
        for x in uneven(4):
            adapted.state["selected_share"].fill_(0.0)
            net.rows.clear()
            adapted(x)
            chosen = int(adapted.last.selected)
            again = [(chosen, True)] * (kind == "group_norm" and chosen > 0)
            assert net.rows == [(12, kind == "batch_norm"), *again]
            assert adapted.last.backwards == 1
        adapted.state["selected_share"].fill_(0.9)
        net.rows.clear()
        adapted(uneven(1)[0])
        assert net.rows == [(12, True)]


def test_the_two_ways_learn_the_same():
    """Rerunning the sure rows, and masking the graph of all of them."""
    found = []
    for share in (0.0, 0.9):
        adapted = acclimate.adapt(group_net(), NCTTA(**SETTINGS))
        for x in uneven(4):
            adapted.state["selected_share"].fill_(share)
            adapted(x)
        found.append(torch.cat([weight.detach().flatten() for weight in adapted.state.weights.values()]))
    assert torch.allclose(*found, rtol=0, atol=1e-10)


def test_an_embedded_head_is_found_by_structure():
    """No attribute is called fc, classifier or head; the features are what the last linear layer is fed."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = small_net()[:-1]
            self.zz = nn.ModuleDict({"out": small_net()[-1]})

        def forward(self, x: Tensor) -> Tensor:
            return self.zz["out"](self.trunk(x))

    plain, odd = acclimate.adapt(small_net(), NCTTA(**SETTINGS)), acclimate.adapt(Odd(), NCTTA(**SETTINGS))
    for x in stream(3):
        assert torch.equal(plain(x), odd(x))
        assert plain.last.loss == odd.last.loss


class Extended(nn.Module):
    """The last linear layer is not the one that answers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.aside = nn.Linear(32, 7).double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.net[:-1](x)
        return self.net[-1](h) + 0 * self.aside(h).sum(1, keepdim=True)


class Dense(nn.Module):
    """A linear layer at every pixel, then a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3).double()
        self.out = nn.Linear(3, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x).flatten(2).transpose(1, 2)).mean(1)


def test_heads_that_do_not_fit():
    headless = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with pytest.raises(ValueError, match="what a linear classifier is fed, but Sequential has none"):
        acclimate.adapt(headless, "nctta")
    x = stream(1)[0]
    with pytest.raises(ValueError, match=r"logits are \[12, 4\].*weight \[7, 32\], so it is not the classifier"):
        acclimate.adapt(Extended(), "nctta")(x)
    with pytest.raises(ValueError, match=r"fed \[12, 64, 3\], expected one vector \[N, D\]"):
        acclimate.adapt(Dense(), "nctta")(x)


@pytest.mark.parametrize("alignment", ["margin_triplet", "hinge_cos"])
def test_margin_losses_need_a_class_to_compare_with(alignment):
    with pytest.raises(ValueError, match="compares 4 classes with the others, but the model tells 4 apart"):
        acclimate.adapt(small_net(), NCTTA(alignment=alignment, top_k=9))
    adapted = acclimate.adapt(small_net(), NCTTA(alignment=alignment, entropy_coeff=1.0))
    adapted(stream(1)[0])
    assert adapted.last.updated


def test_published_presets():
    literal = 0.4 * math.log(1000)
    published = NCTTA.preset("imagenet")
    assert (published.entropy_threshold, published.margin_threshold) == (literal, literal)
    assert (published.top_k, published.alpha, published.scale) == (10, 0.3, 5.0)
    assert (published.reweight, published.nu, published.eta, published.temperature) == (1.0, 5.0, 1.0, 1.0)
    assert (published.optimizer, published.learning_rate) == ("sgd", 1e-3)
    assert (published.candidates, published.variant, published.detach_target) == ("prob", "code", False)
    few = NCTTA.preset("cifar10")
    assert (few.top_k, few.alpha, few.entropy_threshold, few.entropy_coeff) == (3, 0.5, None, 0.4)
    paper = NCTTA.preset("paper")
    assert (paper.candidates, paper.variant, paper.metric, paper.scale) == ("hybrid", "paper", "euclid", 1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"entropy_coeff": 1.5}, {"margin_coeff": -0.1}, {"entropy_threshold": 0}, {"margin_threshold": -1.0},
        {"nu": -1}, {"eta": -1}, {"scale": -1}, {"reweight": -1}, {"top_k": 0}, {"top_k": 2.5}, {"alpha": 1.1},
        {"temperature": 0}, {"alignment": "l1"}, {"metric": "l1"}, {"candidates": "all"}, {"variant": "mine"},
        {"learning_rate": 0},
    ],
)  # fmt: skip
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        NCTTA(**options)
