"""Adapted as its users meet it: arguments, errors, switches, reports, memory, and what may go wrong around a step."""

from __future__ import annotations

import contextlib
import copy
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import acclimate
import acclimate.adapted
from acclimate.anatomy import affine_norms
from acclimate.core.state import State
from acclimate.methods.tent import Tent
from acclimate.normalization.batch import BatchStatistics
from conformance.models import CLASSES, MODELS, ConvNet, Mlp, built, images
from conformance.tools import Fault, Faulty, answers, assert_same, bits, book, make, source_answer, verdict_deferred

FACTORY, BATCH = MODELS["batch_norm"]


# -- arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"method": "tnet"}, "tent"),
        ({"method": "tent:cifra"}, "cifar"),
        ({"method": Tent}, "instance|Tent"),
        ({"method": 3}, "method"),
        ({"method": None}, "method"),
        ({"method": BatchStatistics()}, "method"),
        ({"method": "tent", "normalization": "bach"}, "batch"),
        ({"method": "tent", "normalization": Tent()}, "normali[sz]ation"),
        ({"method": "tent", "answer": "now"}, "before"),
        ({"method": "tent", "seed": "a"}, "seed"),
    ],
    ids=["typo", "preset", "class", "number", "nothing", "normalization", "other typo", "method", "answer", "seed"],
)
def test_wrong_arguments_are_value_errors(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        acclimate.adapt(FACTORY(), **arguments)


@pytest.mark.parametrize("model", [None, torch.nn.functional.relu, "resnet", torch.zeros(3)])
def test_only_modules_adapt(model: Any) -> None:
    with pytest.raises(ValueError, match="Module"):
        acclimate.adapt(model, "tent")


def test_an_adapted_model_is_not_adapted_again() -> None:
    with pytest.raises(ValueError, match="unwrap"):
        acclimate.adapt(acclimate.adapt(FACTORY(), "tent"), "tent")


def test_models_that_cannot_be_cloned_say_why() -> None:
    locked = FACTORY()
    locked.lock = threading.Lock()
    with pytest.raises(ValueError, match="lock"):
        acclimate.adapt(locked, "tent")
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="not initialised"):
        acclimate.adapt(lazy, "tent")
    with pytest.raises(ValueError, match="Sequential"):
        acclimate.adapt(nn.BatchNorm2d(3), "bn")
    grown = FACTORY()
    grown.register_buffer("scale", grown.head.weight * 2)
    with pytest.raises(ValueError, match="graph"):
        acclimate.adapt(grown, "tent")


def test_hyper_parameters_out_of_range() -> None:
    for wrong in ({"learning_rate": 0}, {"learning_rate": float("nan")}, {"steps": 0}, {"normalization": "x"}):
        with pytest.raises(ValueError, match=next(iter(wrong)).replace("z", ".")):
            Tent(**wrong)


def test_calls_without_a_batch_say_what_is_expected() -> None:
    adapted = acclimate.adapt(FACTORY(), "tent")
    for args, match in [
        ((), "tensor"),
        (("cat",), "tensor"),
        ((BATCH(0)[:0],), "empty"),
        ((torch.tensor(1.0),), "batch"),
        (((BATCH(0) * 255).byte(),), "255"),
        ((BATCH(0)[:, :2],), r"N, 3, H, W"),
        ((BATCH(0).double(),), "float32"),
        ((BATCH(0)[0],), r"N, 3, H, W|rows"),
    ]:
        with pytest.raises(ValueError, match=match):
            adapted(*args)
    assert_same(book(adapted), book(acclimate.adapt(FACTORY(), "tent")), "state after refused calls")


# -- switches and reports --------------------------------------------------------------------------------


def test_train_and_eval_do_not_mean_adapt() -> None:
    adapted, twin = make("tent", FACTORY), make("tent", FACTORY)
    assert adapted.train() is adapted and adapted.training and adapted.adapting
    assert adapted.eval() is adapted and not adapted.training and adapted.adapting
    assert_same(adapted(BATCH(0)), twin(BATCH(0)), "the answer")
    adapted.adapting = False
    before = book(adapted)
    adapted(BATCH(1))
    assert_same(book(adapted), before, "state")
    assert adapted.last.skipped == "frozen"


def test_frozen_blocks_nest_and_survive_errors() -> None:
    adapted = make("tent", FACTORY)
    with adapted.frozen():
        with adapted.frozen():
            assert not adapted.adapting
        assert not adapted.adapting
        with pytest.raises(ValueError, match="expected"):
            adapted(BATCH(0)[:, :1])
    assert adapted.adapting


def test_the_report_of_a_step() -> None:
    adapted = make("tent", FACTORY)
    assert adapted.last is None
    x = BATCH(0)
    found = adapted(x)
    last = adapted.last
    p = found.softmax(1)
    assert last.samples == 8 and last.held == 0 and last.updated and last.reason is None and not last.restarted
    assert last.entropy == pytest.approx(float(-(p * p.log()).sum(1).mean()), rel=1e-5)
    assert last.loss == pytest.approx(last.entropy, rel=1e-5)
    source, now = dict(adapted.unwrap().named_parameters()), adapted.state.weights
    far = torch.cat([(now[n] - source[n]).detach().flatten() for n in now]).norm()
    size = torch.cat([source[n].detach().flatten() for n in now]).norm()
    assert last.distance == pytest.approx(float(far / size), rel=1e-5)
    assert last.milliseconds > 0
    x[0] = float("nan")
    adapted(x)
    assert (adapted.last.samples, adapted.last.held, adapted.last.updated) == (8, 1, True)
    adapted(x[:1])
    assert (adapted.last.samples, adapted.last.held, adapted.last.updated) == (1, 1, False)
    assert adapted.state.batches == 2


def test_reasons_name_what_was_wrong() -> None:
    adapted = make(Tent(learning_rate=1e3), FACTORY)
    adapted(BATCH(0))
    assert "moved the weights" in adapted.last.reason
    fault = Fault()
    adapted = acclimate.adapt(Faulty(FACTORY(), fault), "tent")
    fault.gradient = 1e25
    adapted(BATCH(0))
    assert "not finite" in adapted.last.reason
    assert_same(book(adapted), book(acclimate.adapt(Faulty(FACTORY(), Fault()), "tent")), "state")


def test_episodes_have_no_memory() -> None:
    """An episodic method answers each batch as a freshly built one would."""
    method = Tent(episodic=True, steps=3)
    adapted = make(method, FACTORY)
    for number in range(3):
        assert_same(adapted(BATCH(number)), make(method, FACTORY)(BATCH(number)), f"answer {number}")
        assert adapted.last.restarted
    assert adapted.state.batches == 3


@dataclass(frozen=True, kw_only=True)
class Moody(acclimate.Method):
    """Learns from every other batch only, draws from its generator each time."""

    card: ClassVar[acclimate.Card] = acclimate.Card(summary="test", paper="none", fails_when="always")
    restart: bool = False

    def setup(self, state: State) -> None:
        state.adapt(affine_norms, "norms")
        state.declare("draws", torch.zeros(3), initial=0.0)

    def step(self, state: State, x: Tensor) -> Tensor:
        logits = state.forward(x)
        if self.restart:
            state.restart()
        state["draws"].copy_(torch.rand(3, generator=state.generator("late")))
        with torch.no_grad():
            state.weights["norm1.weight"].mul_(1.01)
        state.learn_if(torch.tensor(state.batches % 2 == 0), "it does not feel like it")
        return logits

    def cost(self) -> acclimate.Cost:
        return acclimate.Cost(forwards=1, backwards=0, copies={"weights": 1})


@pytest.mark.parametrize("deferred", [False, True])
def test_an_unmet_wish_keeps_counters_and_generators_going(deferred: bool) -> None:
    """Nothing is learned, yet the batch counts; the random draws of later batches are fresh ones."""
    with verdict_deferred() if deferred else _nothing():
        adapted = make(Moody(), FACTORY)
        seen = []
        for number in range(4):
            adapted(BATCH(number))
            adapted.settle()
            seen.append((adapted.state["draws"].clone(), adapted.state.weights["norm1.weight"].detach().clone()))
            assert adapted.state.batches == number + 1
            assert adapted.last.updated == (number % 2 == 0)
        own = torch.Generator()
        own.set_state(make(Moody(), FACTORY).state.generator("late").get_state())
        draws = [torch.rand(3, generator=own) for _ in range(4)]
        start = FACTORY().norm1.weight
        once = start * 1.01
        expected = [(draws[0], once), (draws[0], once), (draws[2], once * 1.01), (draws[2], once * 1.01)]
        for number, (found, wanted) in enumerate(zip(seen, expected, strict=True)):
            assert_same(list(found), list(wanted), f"state after batch {number}")


@pytest.mark.parametrize("deferred", [False, True])
def test_a_restart_without_learning_still_forgets(deferred: bool) -> None:
    with verdict_deferred() if deferred else _nothing():
        adapted = make(Moody(restart=True), FACTORY)
        adapted(BATCH(0))
        adapted(BATCH(1))
        adapted.settle()
        assert_same(adapted.state.weights["norm1.weight"], FACTORY().norm1.weight, "a forgotten weight")
        assert adapted.state.batches == 2 and adapted.last.restarted and not adapted.last.updated


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...


# -- snapshots -------------------------------------------------------------------------------------------


def test_tags() -> None:
    """Automatic tags never overwrite; unknown ones are errors that list the known."""
    adapted = make("tent", FACTORY)
    tags = [adapted.snapshot(), adapted.snapshot()]
    adapted.forget(tags[0])
    tags += [adapted.snapshot(), adapted.snapshot()]
    assert len(set(tags)) == 4, "an automatic tag was given twice"
    adapted.forget("never taken")
    with pytest.raises(ValueError, match=tags[1]):
        adapted.restore(tags[0])


def test_a_snapshot_survives_what_follows() -> None:
    """Its tensors are copies: further steps, restores and resets leave it as it was."""
    adapted = make("tent", FACTORY)
    answers(adapted, map(BATCH, range(2)))
    tag = adapted.snapshot()
    before = {name: bits(t) for name, t in adapted._snapshots[tag].tensors.items()}
    adapted.restore(tag)
    answers(adapted, map(BATCH, range(2)))
    adapted.reset()
    adapted(BATCH(0))
    assert {name: bits(t) for name, t in adapted._snapshots[tag].tensors.items()} == before


# -- the source ------------------------------------------------------------------------------------------


def test_loading_a_state_dict_does_not_write_into_the_source() -> None:
    """torch's own load_state_dict would copy into storage that belongs to the source: refused, or kept away from it."""
    model = FACTORY()
    adapted = acclimate.adapt(model, "tent")
    foreign = {name: torch.zeros_like(tensor) for name, tensor in adapted.state_dict().items()}
    with contextlib.suppress(ValueError, NotImplementedError):
        adapted.load_state_dict(foreign, strict=False)
    for (name, ours), theirs in zip(model.state_dict().items(), FACTORY().state_dict().values(), strict=True):
        assert_same(ours, theirs, name)


def test_graphs_over_the_source_survive_adaptation() -> None:
    """A backward through the user's own model is not disturbed by steps taken in between."""
    model = FACTORY()
    adapted = acclimate.adapt(model, "palm")
    answers(adapted, map(BATCH, range(2)))
    loss = model(BATCH(0)).square().mean()
    answers(adapted, map(BATCH, range(2)))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_copies_are_independent() -> None:
    """`copy.deepcopy` gives a second adaptation that continues on its own."""
    adapted, twin = make("palm", FACTORY), make("palm", FACTORY)
    for each in (adapted, twin):
        answers(each, map(BATCH, range(2)))
    other = copy.deepcopy(adapted)
    answers(other, map(BATCH, range(3, 6)))
    assert_same(book(adapted), book(twin), "state of the original")
    later = [BATCH(number) for number in range(3, 6)]
    assert_same(answers(adapted, later), answers(twin, later), "answers of the original")
    assert_same(book(other), book(twin), "state of the copy")


def test_conversions() -> None:
    """Moving to where it is changes nothing; another number type is refused before anything changes."""
    adapted, twin = make("tent", FACTORY), make("tent", FACTORY)
    for each in (adapted, twin):
        answers(each, map(BATCH, range(2)))
    for convert in (lambda: adapted.double(), lambda: adapted.half(), lambda: adapted.to(torch.bfloat16)):
        with pytest.raises(ValueError, match="number type"):
            convert()
    assert adapted.to("cpu") is adapted and adapted.float() is adapted and adapted.cpu() is adapted
    later = [BATCH(number) for number in range(3, 6)]
    assert_same(answers(adapted, later), answers(twin, later), "answers")
    adapted.reset()
    assert_same(book(adapted), book(make("tent", FACTORY)), "state after reset()")


def test_models_built_under_inference_mode() -> None:
    """Their tensors refuse autograd: adapted all the same, or refused by adapt."""
    with torch.inference_mode():
        model = FACTORY()
    try:
        adapted = acclimate.adapt(model, "tent")
    except ValueError as error:
        assert "inference" in str(error)
    else:
        assert_same(adapted(BATCH(0)), make("tent", FACTORY)(BATCH(0)), "the answer")


# -- what may go wrong around a step ---------------------------------------------------------------------


class Particular(nn.Module):
    """Raises for inputs that are not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FACTORY()

    def forward(self, x: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise RuntimeError("this model checks its input")
        return self.net(x)


def test_a_source_that_raises_on_a_bad_row_undoes_the_step() -> None:
    """The call failed, so nothing of it may remain."""
    adapted = acclimate.adapt(Particular(), "tent")
    x = BATCH(0)
    x[3, 0, 0, 0] = float("nan")
    with pytest.raises((ValueError, RuntimeError)):
        adapted(x)
    assert_same(book(adapted), book(acclimate.adapt(Particular(), "tent")), "state")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_second_answer_undoes_the_step(error: type[BaseException]) -> None:
    """With `answer="after"` the last forward belongs to the transaction."""
    fault = Fault()
    adapted = acclimate.adapt(Faulty(FACTORY(), fault), "tent", answer="after")
    fault.countdown, fault.error = 2, error
    with pytest.raises(error):
        adapted(BATCH(0))
    assert_same(book(adapted), book(acclimate.adapt(Faulty(FACTORY(), Fault()), "tent")), "state")


def test_an_interrupt_while_the_step_is_judged_undoes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = make("tent", FACTORY)
    adapted(BATCH(0))
    before = book(adapted)

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(acclimate.adapted, "entropy", interrupt)
        with pytest.raises(KeyboardInterrupt):
            adapted(BATCH(1))
    assert_same(book(adapted), before, "state")


class Steep(nn.Module):
    """Finite at its source weights, infinite where they are twice as large."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FACTORY()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * (60 * self.net.norm1.weight.mean()).exp()


@dataclass(frozen=True, kw_only=True)
class Push(acclimate.Method):
    """Makes every adapted weight 1.4 times as large."""

    card: ClassVar[acclimate.Card] = acclimate.Card(summary="test", paper="none", fails_when="always")

    def setup(self, state: State) -> None:
        state.adapt(affine_norms, "norms")

    def step(self, state: State, x: Tensor) -> Tensor:
        logits = state.forward(x)
        with torch.no_grad():
            for weight in state.weights.values():
                weight.mul_(1.4)
        return logits


@pytest.mark.parametrize("answer", ["before", "after"])
def test_no_answer_is_infinite_because_of_an_earlier_batch(answer: str) -> None:
    """Finite weights can still give infinite answers: then the source answers, frozen or not."""
    adapted = acclimate.adapt(Steep(), Push(), answer=answer)
    for number in range(3):
        assert bool(adapted(BATCH(number)).isfinite().all()), f"batch {number}"
        with adapted.frozen():
            assert bool(adapted(BATCH(number)).isfinite().all()), f"frozen, after batch {number}"


def test_weights_that_start_at_zero_can_learn() -> None:
    """The bound on a step is relative to the source's norm; all zeros must not make every step an explosion."""

    def zeros() -> nn.Module:
        model = FACTORY()
        nn.init.zeros_(model.norm1.bias)
        nn.init.zeros_(model.norm2.bias)
        return model

    def biases(model: nn.Module) -> dict[str, nn.Parameter]:
        return {name: p for name, p in affine_norms(model).items() if name.endswith("bias")}

    adapted = acclimate.adapt(zeros(), Tent(select=biases))
    adapted(BATCH(0))
    assert adapted.last.updated, adapted.last.reason


@pytest.mark.parametrize("name", ["importance", "mean_prediction", "sensitivity", "batches", "optimizer", "generator"])
@pytest.mark.parametrize("method", ["palm", "rdumb"])
def test_the_models_own_names_do_not_collide_with_the_methods(method: str, name: str, tmp_path: Any) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = FACTORY()
            setattr(self, name, nn.BatchNorm2d(3))
            self.register_buffer("importance_" if name == "importance" else "importance", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.get_buffer("importance_" if name == "importance" else "importance").add_(1)
            return self.net(getattr(self, name)(x))

    adapted = acclimate.adapt(Named(), method)
    answers(adapted, map(BATCH, range(2)))
    adapted.save(tmp_path / "state")
    assert_same(book(acclimate.load(Named(), tmp_path / "state")), book(adapted), "state")


# -- layout and memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["batch_norm", "vit", "mlp"])
@pytest.mark.parametrize("method", ["tent", "bn:ema"])
def test_layout_of_the_input_does_not_matter(method: str, model: str) -> None:
    """Channels-last, strided and expanded inputs have the answers of plain ones, to rounding."""
    factory, batch = MODELS[model]
    if method == "bn:ema" and model == "vit":
        pytest.skip("no batch norm")
    plain = answers(make(method, factory), map(batch, range(2)))
    layouts: list[Callable[[Tensor], Tensor]] = [lambda x: torch.stack([x, x], -1)[..., 0]]
    if model != "mlp":
        layouts.append(lambda x: x.contiguous(memory_format=torch.channels_last))
    for layout in layouts:
        found = answers(make(method, factory), (layout(batch(number)) for number in range(2)))
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["tent", "rdumb", "palm"])
def test_group_norm_in_channels_last(method: str) -> None:
    """torch 2.13 crashes in the backward of a channels-last group norm whose input needs no gradient; we must not."""
    code = (
        "import torch; torch.set_num_threads(1); import acclimate\n"
        "from conformance.models import MODELS\n"
        "factory, batch = MODELS['group_norm']\n"
        f"adapted = acclimate.adapt(factory(), {method!r})\n"
        "for number in range(4):\n"
        "    x = batch(number)\n"
        "    adapted(x.contiguous(memory_format=torch.channels_last) if number % 2 else x)\n"
    )
    roots = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {roots!r}\n{code}"], capture_output=True, check=False
    )
    assert done.returncode == 0, f"the process ended with {done.returncode}: {done.stderr[-500:].decode()}"


class _Saved:
    """Bytes of the distinct storages that autograd keeps in one forward, parameters and buffers left out."""

    def __init__(self, model: nn.Module) -> None:
        self.owned = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        self.sizes: dict[int, int] = {}
        self.alive: list[Tensor] = []

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.owned:
            self.sizes[storage.data_ptr()] = storage.nbytes()
            self.alive.append(tensor)
        return tensor


def _counted(adapted: acclimate.Adapted, x: Tensor) -> int:
    meter = _Saved(adapted.module)
    with torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda tensor: tensor), torch.enable_grad():
        log_p = adapted.module(x).log_softmax(1)
        loss = -(log_p.exp() * log_p).sum(1).mean()
    del loss
    return sum(meter.sizes.values())


@pytest.mark.parametrize("model", ["batch_norm", "group_norm", "vit", "mlp"])
def test_saved_bytes_are_those_of_a_forward_by_hand(model: str) -> None:
    """What autograd keeps for Tent's loss, counted with hooks of our own, is what `memory(x)` says and predicts.

    A layout of the library's own choosing may cost copies of the input; hence a tolerance of the input's bytes.
    """
    factory, batch = MODELS[model]
    adapted = acclimate.adapt(factory(), "tent")
    for x in (batch(0), torch.cat([batch(number) for number in range(4)])):
        measured, expected = adapted.memory(x), _counted(adapted, x)
        spare = x.numel() * x.element_size()
        assert abs(measured.saved - expected) <= max(spare, 0.05 * expected), f"{measured.saved}, by hand {expected}"
        assert abs(measured.predicted - measured.saved) <= 0.05 * measured.saved


def test_state_bytes_are_exact() -> None:
    """Tent on two norms: weights, two moments each, and one step count of four bytes for each tensor."""
    adapted = acclimate.adapt(FACTORY(), "tent")
    fresh = adapted.memory()
    weights = 4 * (8 + 8 + 12 + 12)
    assert fresh.state == {"weights": weights} and fresh.saved is None and fresh.predicted is None
    adapted(BATCH(0))
    assert adapted.memory().state == {"weights": weights, "optimizer": 2 * weights, "counters": 4 * 4}
    adapted.reset()
    assert adapted.memory().state == fresh.state


def test_memory_of_a_step_that_cannot_be_made_leaves_no_trace() -> None:
    adapted, twin = make("tent", FACTORY), make("tent", FACTORY)
    for each in (adapted, twin):
        each(BATCH(0))
    with pytest.raises(ValueError, match="expected"):
        adapted.memory(BATCH(0)[:, :2])
    adapted.memory(torch.full_like(BATCH(0), float("nan")))
    assert_same(book(adapted), book(twin), "state")
    assert adapted.last.updated


def test_repeated_rows_do_not_spoil_the_prediction() -> None:
    """The two smaller batches are not taken from rows that are unfit or identical."""
    adapted = make("tent", FACTORY)
    x = torch.cat([BATCH(0)[:1].repeat(3, 1, 1, 1), BATCH(0)[1:6]])
    measured = adapted.memory(x)
    assert abs(measured.predicted - measured.saved) <= 0.05 * measured.saved


def test_refused_source_parts_still_answer() -> None:
    """A batch whose answers are not finite is answered by the source, and only then."""

    class Brittle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = built(lambda: ConvNet(nn.BatchNorm2d))

        def forward(self, x: Tensor) -> Tensor:
            bad = (x.amax((1, 2, 3)) > 2).float()[:, None]
            return self.net(x) / (1 - bad)

    adapted, twin = acclimate.adapt(Brittle(), "tent"), acclimate.adapt(Brittle(), "tent")
    x = BATCH(0)
    x[2] *= 5
    found = adapted(x)
    assert adapted.last.held == 8 and "not finite" in adapted.last.reason
    assert_same(found, source_answer(Brittle, x), "the answer")
    assert_same(book(adapted), book(twin), "state")


def test_batch_norm_over_rows() -> None:
    """Rows of a table may be constant; that is no black frame."""
    adapted = acclimate.adapt(built(Mlp), "tent")
    x = torch.rand(8, 6, generator=torch.Generator().manual_seed(0))
    x[2] = 0.5
    assert adapted(x).shape == (8, CLASSES) and adapted.last.held == 0


def test_images_are_those_of_the_stream() -> None:
    """The stream of these tests is itself fit to learn from."""
    assert float(images(0).min()) >= 0 and float(images(0).max()) <= 1 and images(0).shape == (8, 3, 8, 8)


def test_a_deep_copy_shares_nothing_and_gives_nothing_away() -> None:
    """The copy goes on like the original, and what it returns is the caller's own."""

    class Open(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.head(self.norm(x).mean((2, 3))), "scale": self.norm.weight}

    x = torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    adapted = acclimate.adapt(Open(), "tent")
    adapted(x)
    twin = copy.deepcopy(adapted)
    expected = adapted(x)
    found = twin(x)
    assert torch.equal(found["logits"], expected["logits"])
    found["scale"].zero_()
    assert torch.equal(twin(x)["logits"], adapted(x)["logits"])


def test_a_model_with_broken_weights_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        acclimate.adapt(net, "tent")


def test_a_single_output_is_refused() -> None:
    """Entropy over one class is 0 whatever the model says: nothing could ever be learned."""
    adapted = acclimate.adapt(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)), "tent")
    with pytest.raises(ValueError, match="one class"):
        adapted(torch.rand(6, 3))
    assert adapted.state.batches == 0
