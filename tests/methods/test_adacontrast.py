"""AdaContrast against a float64 oracle of its nine steps, with the views that the method itself drew."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.methods.adacontrast import AdaContrast
from conformance.tools import verdict_deferred
from methods.reference import small_net, stream

SIZE = 30
OPTIONS = {"learning_rate": 1e-2, "momentum": 0.9, "queue_size": SIZE, "neighbours": 4, "warm_up": 30}


class Recorder:
    """Views that differ by draws, and all that were made, in order."""

    def __init__(self) -> None:
        self.made: list[Tensor] = []

    def weak(self, x: Tensor, generator: torch.Generator) -> Tensor:
        self.made.append(x.flip(-1))
        return self.made[-1]

    def strong(self, x: Tensor, generator: torch.Generator) -> Tensor:
        self.made.append((x + 0.1 * torch.rand(x.shape, generator=generator, dtype=x.dtype)).clamp(0, 1))
        return self.made[-1]

    def method(self, **options) -> AdaContrast:
        return AdaContrast(**{**OPTIONS, **options}, weak=self.weak, strong=self.strong)


class Oracle:
    """Step by step; queue and bank are lists whose oldest entries go."""

    def __init__(self, net: nn.Module, keys: Tensor, labels: Tensor, method: AdaContrast) -> None:
        self.o, self.query, self.momentum = method, copy.deepcopy(net), copy.deepcopy(net)
        options = {"lr": method.learning_rate, "momentum": 0.9, "nesterov": True, "weight_decay": method.weight_decay}
        self.sgd = torch.optim.SGD(self.query.parameters(), **options)
        self.keys, self.labels = list(keys), labels.tolist()
        self.bank: list[tuple[Tensor, Tensor]] = []
        self.place = self.seen = 0
        self.voted = self.changed = 0

    @staticmethod
    def unit(f: Tensor) -> Tensor:
        return f / f.norm(dim=1, keepdim=True)

    def step(self, x: Tensor, w: Tensor, q: Tensor, k: Tensor) -> Tensor:
        self.query.train(), self.momentum.train()
        with torch.no_grad():
            raw = self.query[:-1](w)
            f_w, labels = self.unit(raw), self.query[-1](raw).argmax(1)
            if self.seen >= self.o.warm_up:
                for row, f in enumerate(f_w):
                    nearest = sorted(self.bank, key=lambda entry: -float(entry[0] @ f))[: self.o.neighbours]
                    vote = int((sum(p for _, p in nearest) / len(nearest)).argmax())
                    self.voted, self.changed = self.voted + 1, self.changed + int(vote != int(labels[row]))
                    labels[row] = vote
        raw = self.query[:-1](q)
        f_q, z_q = self.unit(raw), self.query[-1](raw)
        with torch.no_grad():
            m = self.o.momentum
            for slow, fast in zip(self.momentum.parameters(), self.query.parameters(), strict=True):
                slow.copy_(m * slow + (1 - m) * fast)
            f_k = self.unit(self.momentum[:-1](k))
        similar = [torch.cat([(f_q[b] @ f_k[b])[None], f_q[b] @ torch.stack(self.keys, 1)]) for b in range(len(x))]
        for row in range(len(x)):
            self.keys[(self.place + row) % SIZE] = f_k[row]
            self.labels[(self.place + row) % SIZE] = int(labels[row])
        self.place = (self.place + len(x)) % SIZE
        contrast = torch.zeros((), dtype=x.dtype)
        for b, row in enumerate(similar):
            others = [i for i in range(SIZE) if self.labels[i] != int(labels[b])]
            kept = torch.cat([row[:1], row[1:][others]]) / self.o.temperature
            contrast = contrast - kept.log_softmax(0)[0] / len(x)
        mean = z_q.softmax(1).mean(0)
        loss = nn.functional.cross_entropy(z_q, labels) + contrast + (mean * torch.log(mean + 1e-8)).sum()
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        with torch.no_grad():
            raw = self.momentum[:-1](w)
            self.bank += list(zip(self.unit(raw), self.momentum[-1](raw).softmax(1), strict=True))
            self.bank = self.bank[-SIZE:]
        self.seen += len(x)
        self.query.eval()
        with torch.no_grad():
            return self.query(x)


def run(switch: dict, count: int) -> tuple[acclimate.Adapted, Oracle]:
    views = Recorder()
    adapted = acclimate.adapt(small_net(), views.method(**switch))
    oracle = Oracle(small_net(), adapted.state["keys"].clone(), adapted.state["labels"], adapted.method)
    for x in stream(count):
        found = adapted(x)
        assert torch.allclose(found, oracle.step(x, *views.made), rtol=0, atol=1e-8)
        assert adapted.state["labels"].tolist() == oracle.labels
        views.made.clear()
    return adapted, oracle


@pytest.mark.parametrize("switch", [{}, {"warm_up": 1}, {"momentum": 0.0}, {"temperature": 1.0}], ids=str)
def test_equals_the_oracle(switch):
    """Ten batches of twelve: queue and bank of thirty wrap in the third; then neighbours give the labels."""
    adapted, oracle = run(switch, 10)
    assert 0 < oracle.changed < oracle.voted, "neighbours and the model's own labels differ for some rows"
    weights, slow = dict(oracle.query.named_parameters()), dict(oracle.momentum.named_parameters())
    for name, weight in adapted.state.weights.items():
        assert torch.allclose(weight, weights[name], rtol=0, atol=1e-8), name
        assert torch.allclose(adapted.state.twins["momentum"][name], slow[name], rtol=0, atol=1e-8), name
    assert torch.allclose(adapted.state["keys"], torch.stack(oracle.keys), rtol=0, atol=1e-8)
    for number, (feature, prediction) in enumerate(oracle.bank, start=oracle.seen - SIZE):
        assert torch.allclose(adapted.state["bank"][number % SIZE], feature, rtol=0, atol=1e-8)
        assert torch.allclose(adapted.state["predictions"][number % SIZE], prediction, rtol=0, atol=1e-8)


def test_statistics_are_those_of_train_mode():
    """Moved twice a batch, by the two views of the live model, and by nothing else."""
    adapted, oracle = run({}, 4)
    for place in ("1", "4"):
        norm = oracle.query.get_submodule(place)
        for key in ("running_mean", "running_var"):
            found = adapted.state.table.slots[f"normalization.{place}.{key}"].tensor
            assert torch.allclose(found, getattr(norm, key), rtol=0, atol=1e-9)


def test_answers_are_those_of_a_plain_model_with_what_was_learned():
    adapted, oracle = run({}, 3)
    x = stream(4)[3]
    with torch.no_grad():
        assert torch.allclose(adapted.merged()(x), oracle.query(x), rtol=0, atol=1e-8)


def test_labels_come_from_neighbours_after_1024_samples():
    """Batches of 200: the first six are labelled by the model, from the seventh on the bank votes.

    The bank is made to vote for class 3 throughout.
    """
    views = Recorder()
    adapted = acclimate.adapt(small_net(), AdaContrast(queue_size=2000, weak=views.weak, strong=views.strong))
    for number, x in enumerate(stream(9, size=200), start=1):
        adapted.state["predictions"].zero_()[:, 3] = 1
        adapted(x)
        written = adapted.state["labels"][200 * (number - 1) : 200 * number]
        assert bool((written == 3).all()) == (number >= 7), number


def test_places_not_yet_filled_are_no_neighbours():
    """One sample seen, of which all are as far as can be; ten neighbours wanted: its prediction is the vote."""
    views = Recorder()
    adapted = acclimate.adapt(small_net(), views.method(warm_up=1, neighbours=10))
    x = stream(1)[0]
    adapted(x[:1])
    adapted.state["bank"][0].neg_()
    adapted.state["predictions"][0] = torch.eye(4)[2]
    adapted(x)
    assert adapted.state["labels"][1:13].tolist() == [2] * 12


def test_a_batch_larger_than_the_queue():
    """Its last rows stay."""
    views = Recorder()
    adapted = acclimate.adapt(small_net(), views.method(queue_size=5, neighbours=10))
    for x in stream(3):
        adapted(x)
    with torch.no_grad(), adapted.state.using("momentum"):
        adapted.state.layers[0].phase = adapted.state.layers[1].phase = "learn"
        kept = adapted.module[:-1](views.made[-3])[-5:]
        adapted.state.layers[0].phase = adapted.state.layers[1].phase = "answer"
    places = [(36 - 5 + row) % 5 for row in range(5)]
    assert torch.allclose(adapted.state["bank"][places], kept / kept.norm(dim=1, keepdim=True), rtol=0, atol=1e-9)


def test_the_queue_starts_from_the_seed():
    """Unit Gaussian keys with labels of all classes; equal after a reset, other for another seed."""
    one, other = (acclimate.adapt(small_net(), AdaContrast(queue_size=400), seed=seed) for seed in (0, 1))
    keys, labels = one.state["keys"].clone(), one.state["labels"].clone()
    assert torch.allclose(keys.norm(dim=1), torch.ones(400, dtype=torch.float64), atol=1e-6)
    assert float(keys.mean(0).abs().max()) < 0.05
    assert labels.bincount(minlength=4).min() > 70
    assert not torch.equal(keys, other.state["keys"])
    one(stream(1)[0])
    one.reset()
    assert torch.equal(one.state["keys"], keys)
    assert torch.equal(one.state["labels"], labels)


def test_a_step_that_breaks_the_weights_is_answered_from_before_it():
    """Where the verdict is not read at once, the answer must be finite all the same: that to the weak view."""
    views = Recorder()
    adapted = acclimate.adapt(small_net(), views.method(learning_rate=1e300))
    x = stream(1)[0]
    with verdict_deferred():
        answer = adapted(x)
    twin = copy.deepcopy(small_net()).train()
    assert torch.allclose(answer, twin(views.made[0]).detach(), rtol=0, atol=1e-9)
    assert adapted.last.verdict.refused


def test_inputs_outside_of_the_unit_range():
    with pytest.raises(ValueError, match=r"views of AdaContrast.*\[0, 1\]"):
        acclimate.adapt(small_net(), AdaContrast(queue_size=10))(stream(1)[0] * 4)


def test_a_wrong_count_of_classes():
    with pytest.raises(ValueError, match="classes=4"):
        acclimate.adapt(small_net(), AdaContrast(queue_size=10, classes=7))(stream(1)[0])


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0.0}, {"momentum": 1.1}, {"queue_size": 0}, {"neighbours": 0}, {"warm_up": 0}]
)
def test_ranges(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AdaContrast(**wrong)
