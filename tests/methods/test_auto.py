"""Auto's decisions against formulas, in float64: what it keeps, when it learns, what it answers in between."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

import acclimate
from acclimate.core.guard import Judgement
from acclimate.core.method import methods
from acclimate.methods.auto import Auto
from acclimate.methods.palm import PALM
from acclimate.methods.tent import Tent
from acclimate.parts.label_clusters import label_clustering, label_novelty
from conformance.models import MODELS
from conformance.tools import answers, assert_same, book, source_answer
from guard.awake import Scripted
from methods.selected import Counted
from methods.told import CLASSES, Told, Watcher, answered, balanced, clustering, novelty, one_class

LIMIT, ROWS = 0.2, 12.0
SETTINGS = {"limit": LIMIT, "rows": ROWS}
TENT = Tent(learning_rate=1e-2)


def stream() -> list[torch.Tensor]:
    """Balanced, sorted by label, balanced again, and of mixed domains; one batch too small to learn from."""
    parts = (
        [balanced(number) for number in range(3)],
        [one_class(number) for number in range(3, 7)],
        [balanced(number) for number in range(7, 11)],
        [balanced(11, 6), balanced(12, mixed=True), balanced(13, mixed=True), balanced(14)],
    )
    return list(itertools.chain(*parts))


def adapted(learner: object = TENT, **options: object) -> acclimate.Adapted:
    return acclimate.adapt(Told(), Auto(learner=learner, **SETTINGS), **options)


def test_equals_the_oracle():
    """Answers, decisions and what is kept, batch by batch, where no weights move."""
    model, watcher, modes = adapted("bn"), Watcher(LIMIT, ROWS), []
    for x in stream():
        learns = watcher.learns(x)
        modes.append(learns)
        expected, spread = answered(x, share=float(learns))
        assert torch.allclose(model(x), expected, rtol=0, atol=1e-6)  # the share is kept in float32
        watcher.see(x)
        values = model.last.values
        assert values["learning"] == learns
        assert values["clustering"] == pytest.approx(watcher.kept, abs=1e-6)
        assert model.state["usual"].tolist() == pytest.approx(watcher.usual, abs=1e-6)
        assert values["spread"] == pytest.approx(spread if len(x) >= 16 else 0, abs=1e-6)
        assert values["domains_mix"] == (len(x) >= 16 and spread > 0.54)
    assert modes == [False, True, True, True, *[False] * 5, True, True, False, True, True, True]


def test_what_is_kept_is_cut():
    """After any number of sorted batches it takes no more balanced ones to learn again."""
    for sorted_batches in (3, 12):
        model = adapted("bn")
        answers(model, map(one_class, range(sorted_batches)))
        assert float(model.state["clustering"]) == pytest.approx(4 * LIMIT)
        modes = [(model(balanced(number)), model.last.values["learning"])[1] for number in range(5)]
        assert modes == sorted(modes) and 1 <= modes.count(0.0) <= 3


def test_a_sorted_stream_leaves_the_weights():
    model = adapted()
    for number in range(6):
        x = one_class(number)
        assert torch.allclose(model(x), answered(x, share=0.0)[0], rtol=0, atol=1e-8)
        assert model.last.backwards == 0
    assert_same(list(model.state.weights.values()), model.state.sources(), "weights")


def test_it_learns_as_its_learner_does_where_labels_do_not_cluster():
    """After the first batch, which nothing is known of."""
    model = adapted(TENT)
    alone = acclimate.adapt(Told(), TENT, normalization="shallow:auto")
    alone.state.table.slots["normalization.shallow.share"].tensor.fill_(1.0)
    model(balanced(0))
    assert_same(list(model.state.weights.values()), model.state.sources(), "weights after the first batch")
    for number in range(1, 4):
        assert_same(model(balanced(number)), alone(balanced(number)), f"answer {number}")
    assert_same(list(model.state.weights.values()), list(alone.state.weights.values()), "weights")
    assert model.last.distance > 0


def test_what_is_kept_goes_on_where_a_step_teaches_nothing():
    """A learner that finds no answer sure enough, a guard that undoes or forgets, a step that begins by forgetting."""
    batches = stream()
    plain = adapted("bn")
    expected = [(plain(x), float(plain.state["clustering"]))[1] for x in batches]

    def always(found: Judgement) -> Scripted:
        return Scripted(script=dict.fromkeys(range(len(batches)), found))

    unsure = PALM(consistency=0.0, margin=0.0)
    undone, forgotten = always(Judgement(hold=True, learn=False)), always(Judgement(forget=1.0))
    episodic = acclimate.adapt(Told(), Auto(learner=TENT, episodic=True, **SETTINGS))
    learnt = [adapted(unsure), adapted(guard=undone), adapted(guard=forgotten), episodic]
    for model in learnt:
        for x, e in zip(batches[:8], expected, strict=False):
            model(x)
            assert float(model.state["clustering"]) == pytest.approx(e, abs=1e-2 if model is episodic else 1e-7)
    for model in learnt[:3]:
        assert_same(list(model.state.weights.values()), model.state.sources(), "weights")


def test_under_the_default_guard():
    """The guard changes nothing of what auto sees and decides."""
    model, free = adapted("bn", guard="default"), adapted("bn")
    fresh = book(model)
    for x in stream():
        answer = free(x)
        assert_same(model(x), answer if not model.last.held else Told().eval()(x), "answer")
        assert model.last.values["clustering"] == free.last.values["clustering"]
        assert model.plan == free.plan
    assert model.tally["judged"] == sum(len(x) for x in stream())
    model.reset()
    assert_same(book(model), fresh, "state after reset()")


def test_resumed_in_the_middle_of_a_sorted_stream(tmp_path):
    model, batches = adapted(), stream()
    answers(model, batches[:5])
    assert model.last.values["learning"] == 0 and model.last.distance > 0
    model.save(tmp_path / "state")
    loaded = acclimate.load(Told(), tmp_path / "state")
    assert loaded.plan == model.plan
    assert_same(answers(loaded, batches[5:]), answers(model, batches[5:]), "answers")
    assert_same(book(loaded), book(model), "state")


@pytest.mark.parametrize("kind", ["group_norm", "vit", "no_norm", "batch_norm_without_statistics", "one_output"])
def test_what_it_cannot_follow_answers_as_the_source(kind):
    def one_output() -> nn.Module:
        net = MODELS["batch_norm"][0]()
        net.head = nn.Linear(12, 1)
        nn.init.constant_(net.head.weight, 0.1)
        nn.init.zeros_(net.head.bias)
        return net

    factory, batch = (one_output, MODELS["batch_norm"][1]) if kind == "one_output" else MODELS[kind]
    model = acclimate.adapt(factory(), "auto")
    for number in range(3):
        assert_same(model(batch(number)), source_answer(factory, batch(number)), f"answer {number}")
    with model.frozen():
        assert_same(model(batch(3)), source_answer(factory, batch(3)), "frozen answer")
    assert not model.state.weights and not model.memory().state
    assert ("one output" if kind == "one_output" else "no batch norm") in model.plan


def test_a_model_of_several_tensors():
    """The probe takes its own rows of all of them."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Told()

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.net(x * mask)

    masked, plain = (acclimate.adapt(net.eval(), Auto(learner=TENT, **SETTINGS)) for net in (Masked(), Told()))
    for x in stream():
        found = masked(x, torch.ones(len(x), 1, 1, 1, dtype=x.dtype))
        assert_same(found, plain(x), "answer")
    assert masked.state["clustering"] == plain.state["clustering"]


def test_a_last_layer_of_one_output_that_is_not_the_head():
    net = Told()
    net.quality = nn.Linear(1, 1)
    held, told = (acclimate.adapt(net, Auto(learner=TENT, classes=classes, **SETTINGS)) for classes in (None, CLASSES))
    assert "classes=" in held.plan and not held.state.weights
    plain = adapted()
    for x in stream():
        assert_same(told(x), plain(x), "answer")


@pytest.mark.parametrize("outputs", [2, CLASSES + 3])
def test_a_layer_that_is_not_the_head_may_come_last(outputs):
    """As an auxiliary head does, whose outputs are not the classes: labels that cluster are told all the same."""
    net = Told()
    net.auxiliary = nn.Linear(1, outputs)
    model = acclimate.adapt(net, Auto(learner=TENT, **SETTINGS))
    modes = [
        (model(x), model.last.values["learning"])[1] for x in (*map(balanced, range(4)), *map(one_class, range(3)))
    ]
    assert modes[3] == 1 and modes[-1] == 0


class Bare(nn.Module):
    """Nothing here shows how many classes there are: neither a linear nor a convolution layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.matrix = nn.Parameter(torch.linspace(-0.1, 0.1, 3 * CLASSES).view(3, CLASSES).double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x).mean((2, 3)) @ self.matrix + 8 * x[:, 0, 0, :CLASSES]


def test_classes_that_the_model_does_not_show():
    model = acclimate.adapt(Bare().double().eval(), Auto(learner=TENT, **SETTINGS))
    modes = []
    for x in (*map(balanced, range(12)), *map(one_class, range(3)), *map(balanced, range(6))):
        assert model(x).isfinite().all()
        modes.append(model.last.values["learning"])
    assert modes[11] == 1 and modes[14] == 0 and modes[-1] == 1


@pytest.mark.parametrize("learner", ["tent", PALM(consistency=0.0), "palm", "bn"])
def test_counted_passes(learner):
    """One forward without a graph where it holds; the learner's and a probe where it learns, as is stated."""
    net = Counted(Told())
    model = acclimate.adapt(net, Auto(learner=learner, **SETTINGS))
    stated, alone = model.method.cost(), methods.build(learner).cost()
    seen = []
    for x in (balanced(0), one_class(1), one_class(2)):
        net.rows.clear()
        model(x.clamp(0, 1))
        assert model.last.forwards == sum(rows for rows, _ in net.rows) / 20
        if model.last.values["learning"]:
            assert model.last.backwards == alone.backwards
            assert net.rows[0] == (16, False) and len(net.rows) == alone.forwards + 1
        else:
            assert net.rows == [(20, False)] and model.last.backwards == 0
        seen.append((model.last.values["learning"], model.last.forwards, model.last.backwards))
    assert [learns for learns, _, _ in seen] == [0, 1, 0]
    assert max(b for _, _, b in seen) == stated.backwards
    assert max(f for _, f, _ in seen) == alone.forwards + 16 / 20 <= stated.forwards + stated.selected
    net.rows.clear()
    model(balanced(3, 7))
    assert net.rows == [(7, False)]


def test_the_learner_is_a_method():
    assert Auto(learner="palm:stable").learner == PALM.preset("stable")
    assert Auto(learner=TENT).learner is TENT
    assert methods.build(Auto(learner=TENT).config()) == Auto(learner=TENT)
    weights = {name: acclimate.adapt(Told(), name).state.weights.keys() for name in ("tent", "palm")}
    assert (
        adapted("tent").state.weights.keys()
        == weights["tent"]
        < weights["palm"]
        == adapted("palm").state.weights.keys()
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("limit", 0),
        ("limit", math.nan),
        ("rows", -1.0),
        ("least", 1),
        ("least", 2.5),
        ("learner", "nobody"),
        ("learner", "auto"),
        ("learner", Tent(steps=2)),
        ("learner", Tent(episodic=True)),
    ],
)
def test_bad_settings(setting, value):
    with pytest.raises(ValueError, match="nobody" if value == "nobody" else setting):
        Auto(**{setting: value})


def test_clustering_of_labels_drawn_at_random():
    """All draws of four labels of three classes: no bias, and the deviation that the docstring states as the most."""
    drawn = torch.tensor(list(itertools.product(range(3), repeat=4)))
    found = torch.stack([label_clustering(1e3 * nn.functional.one_hot(labels, 3).double()) for labels in drawn])
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.std(correction=0)) == pytest.approx(math.sqrt(2 / (2 * 4 * 3)))


def test_novelty_is_that_of_pairs_and_0_in_the_mean_for_the_usual_shares():
    generator = torch.Generator().manual_seed(4)
    logits = 2 * torch.randn(7, CLASSES, generator=generator, dtype=torch.float64)
    usual = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    assert float(label_novelty(logits.softmax(1), usual)) == pytest.approx(novelty(logits, usual.tolist()), abs=1e-12)
    every = itertools.product(range(3), repeat=4)
    shares = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    one_hot = torch.eye(3, dtype=torch.float64)
    found = sum(float(label_novelty(one_hot[list(drawn)], shares) * shares[list(drawn)].prod()) for drawn in every)
    assert found == pytest.approx(0, abs=1e-12)


def test_clustering_of_answers():
    """Against the pairs; of positions their mean; nothing of one row or class."""
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(7, CLASSES, generator=generator, dtype=torch.float64)
    assert float(label_clustering(logits)) == pytest.approx(clustering(logits), abs=1e-12)
    assert float(label_clustering(logits.bfloat16())) == pytest.approx(clustering(logits.bfloat16()), abs=1e-6)
    places = 2 * torch.randn(7, CLASSES, 2, 3, generator=generator, dtype=torch.float64)
    assert float(label_clustering(places)) == pytest.approx(clustering(places.softmax(1).mean((2, 3)).log()), abs=1e-12)
    assert float(label_clustering(logits[:1])) == float(label_clustering(logits[:, :1])) == 0
