"""FOA against a float64 oracle that runs the transformer by hand, and its parts against their formulas."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.core.inputs import Call
from acclimate.methods.foa import FOA
from acclimate.models.residual import ResidualNet
from acclimate.models.transformer import VisionTransformer
from acclimate.parts.prompts import layer_features, prompted
from methods.reference import entropy, stream
from methods.selected import exported, same
from parts.test_evolution import Search, close

WIDTH, DEPTH, CLASSES = 12, 3, 4


def vit() -> VisionTransformer:
    net = VisionTransformer(CLASSES, 8, patch=4, width=WIDTH, depth=DEPTH, heads=2, seed=3).double()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.15)
        net.head.weight.mul_(3)
    return net.eval()


def source_images(count: int = 20) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@torch.no_grad()
def by_hand(net: VisionTransformer, x: Tensor, prompt: Tensor | None, leading: int = 1, before: int = 0):
    """Features of all layers `[L, B, D]` and logits, with prompts `[P, D]` put in before block `before`."""
    patches = net.embed(x * 2 - 1).flatten(2).transpose(1, 2)
    z = torch.cat([net.token.expand(len(x), -1, -1), patches], 1) + net.place
    layers = []
    for number, block in enumerate(net.blocks):
        if number == before and prompt is not None:
            z = torch.stack([torch.cat([row[:leading], prompt, row[leading:]]) for row in z])
        z = block(z)
        layers.append(z[:, 0] if leading else z.mean(1))
    h = net.norm(z)[:, 0]
    layers[-1] = h
    return torch.stack(layers), net.head(h)


def spread_of(rows: Tensor) -> tuple[Tensor, Tensor]:
    mean = rows.sum(0) / len(rows)
    return mean, (((rows - mean) ** 2).sum(0) / len(rows)).sqrt()


class Oracle:
    """The method batch by batch and prompt by prompt, for prompts that were drawn elsewhere."""

    def __init__(
        self, net, images, *, prompts=3, population=27, discrepancy=0.4, rate=0.1, shift=1.0, spread=1.0, **at
    ):
        self.net, self.at = net, at
        self.prompts, self.population = prompts, population
        self.discrepancy, self.rate, self.shift = discrepancy, rate, shift
        self.source = [spread_of(layer) for layer in by_hand(net, images, None, at.get("leading", 1))[0]]
        self.search = Search(prompts * WIDTH, spread)
        self.best, self.centre = torch.zeros(prompts * WIDTH, dtype=torch.float64), None

    def evaluate(self, x, prompt):
        layers, logits = by_hand(self.net, x, prompt.view(self.prompts, WIDTH), **self.at)
        away = 0.0
        for layer, (mean, deviation) in zip(layers, self.source, strict=True):
            now = spread_of(layer)
            away += float((now[0] - mean).norm() + (now[1] - deviation).norm())
        return float(entropy(logits).sum()) + self.discrepancy * len(x) / 64 * away, logits, layers[-1].mean(0), away

    def step(self, x, points):
        candidates = [self.best, *points]
        found = [self.evaluate(x, p) for p in candidates]
        values = [value for value, *_ in found]
        chosen = int(np.argmin(values))
        self.search.learn(torch.stack(candidates).numpy(), np.array(values), given=1)
        self.best, mean = candidates[chosen], found[chosen][2]
        self.centre = mean if self.centre is None else (1 - self.rate) * self.centre + self.rate * mean
        return values[chosen], found[chosen][3], self.answer(found[chosen][1])

    def answer(self, logits):
        way = self.source[-1][0] - self.centre
        return logits + self.shift * (self.net.head.weight.detach() @ way)


SETTINGS = [
    {},
    {"population": 6, "prompts": 2, "discrepancy": 3.0, "rate": 0.4, "shift": 0.5, "spread": 2.0},
    {"population": 5, "leading": 0},
    {"population": 5, "discrepancy": 0.0, "prompts": 1},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("rows", [5, 64, 400])
def test_foa_equals_the_oracle(settings, rows):
    """Answers, best prompt, centre and the whole search, whether prompts share forwards or not."""
    net, images = vit(), source_images()
    oracle = Oracle(net, images, **settings)
    adapted = acclimate.adapt(vit(), FOA(source=images, rows_at_once=rows, **settings))
    state, twin = adapted.state, torch.Generator()
    chosen = []
    for x in stream(5, 10):
        twin.set_state(state.generator("search").get_state())
        noise = torch.randn(oracle.population, len(oracle.best), generator=twin, dtype=torch.float64)
        points = (noise * state["search.scales"]) @ state["search.basis"].T
        fitness, away, expected = oracle.step(x, state["search.mean"] + state["search.spread"] * points)
        found = adapted(x)
        assert adapted.last.forwards == oracle.population + 1
        assert adapted.last.backwards == 0
        assert torch.allclose(found, expected, rtol=0, atol=1e-9)
        assert adapted.last.values["fitness"] == pytest.approx(fitness, rel=1e-6)
        assert adapted.last.values["discrepancy"] == pytest.approx(away, rel=1e-6)
        assert torch.allclose(state["best"].flatten(), oracle.best, rtol=0, atol=1e-9)
        assert torch.allclose(state["centre"], oracle.centre, rtol=0, atol=1e-12)
        close(state, oracle.search)
        chosen.append(oracle.best)
        with adapted.frozen():
            logits = by_hand(net, x, oracle.best.view(oracle.prompts, WIDTH), settings.get("leading", 1))[1]
            assert torch.allclose(adapted(x), oracle.answer(logits), rtol=0, atol=1e-9)
    assert len({tuple(best.tolist()) for best in chosen}) > 1


def test_source_statistics():
    """Of all images however they come, without prompts, deviations over N; the last layer is what the head is fed."""
    images = source_images(20)
    expected = torch.stack([torch.stack(spread_of(layer)) for layer in by_hand(vit(), images, None)[0]], 1)
    for source, size in ((images, 7), (images, 64), (list(images.split(5)), 1), ((images, torch.arange(20)), 3)):
        state = acclimate.adapt(vit(), FOA(source=source, batch_size=size)).state
        assert torch.allclose(state["source"], expected, rtol=0, atol=1e-12)
    few = acclimate.adapt(vit(), FOA(source=images, batch_size=4, samples=8)).state
    assert torch.equal(few["source"], acclimate.adapt(vit(), FOA(source=images[:8], batch_size=4)).state["source"])


def test_discrepancy_of_features_that_are_known():
    """A source whose first layer has another mean, (3, 4) away, and whose last another deviation, 2 away: 7."""
    adapted = acclimate.adapt(vit(), FOA(source=source_images(), population=3, discrepancy=64.0, shift=0.0))
    x = stream(1, 3)[0]
    z = by_hand(vit(), x, torch.zeros(3, WIDTH, dtype=torch.float64))[0]
    target = torch.stack([z.mean(1), z.std(1, correction=0)])
    target[0, 0, :2] += torch.tensor([3.0, 4.0])
    target[1, 2, 5] += 2.0
    adapted.state["source"].copy_(target)
    adapted.state.begin(Call.of((x,), {}, indices=False))
    _, away, means = adapted.method._run(adapted.state, x, torch.zeros(2, 3 * WIDTH, dtype=torch.float64))
    assert away.tolist() == pytest.approx([5.0 + 2.0] * 2)
    assert torch.allclose(means, z[-1].mean(0).expand(2, -1))


def test_the_first_batch_is_shifted_onto_the_source():
    """mu(1) is the batch's own mean, so with shift 1 the mean of the features that answer is the source's."""
    net, images, x = vit(), source_images(), stream(2, 9)[1]
    mean = by_hand(net, images, None)[0][-1].mean(0)
    found = acclimate.adapt(vit(), FOA(source=images, population=4))(x)
    assert torch.allclose(found.mean(0), net.head(mean).detach(), rtol=0, atol=1e-9)


def test_prompts_pay():
    """On one batch again and again the fitness falls, and the best prompt is never given up for a worse one."""
    x = 0.3 * stream(1, 16)[0]
    adapted = acclimate.adapt(vit(), FOA(source=source_images(64), prompts=1, population=12))
    fitness = []
    for _ in range(60):
        adapted(x)
        fitness.append(adapted.last.values["fitness"])
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(fitness))
    assert fitness[-1] < 0.9 * fitness[0]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_place_names_the_block(place):
    images, x = source_images(), stream(1, 6)[0]
    adapted = acclimate.adapt(vit(), FOA(source=images, population=3, place=f"blocks.{place}"))
    adapted(x)
    prompt = adapted.state["best"] + 0.3
    adapted.state["best"].copy_(prompt)
    with adapted.frozen():
        logits = by_hand(vit(), x, prompt, before=place)[1]
        expected = logits + vit().head.weight @ (adapted.state["source"][0, -1] - adapted.state["centre"])
        assert torch.allclose(adapted(x), expected.detach(), rtol=0, atol=1e-9)


class Layers(nn.Module):
    """Another transformer: torch's own layers, blocks that answer with a tuple, features of dropout as the way in."""

    def __init__(self, wrap: bool = False, batch_first: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.embed = nn.Linear(48, 8)
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.dropout = nn.Dropout(0.1)
            layer = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first) for _ in range(2)]
            self.layers = nn.ModuleList([Tupled(each) for each in layer] if wrap else layer)
            self.classifier = nn.Linear(8, CLASSES)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        patches = nn.functional.unfold(x, 4, stride=4).transpose(1, 2)
        z = self.dropout(torch.cat([self.token.expand(len(x), -1, -1), self.embed(patches)], 1))
        z = z if self.batch_first else z.transpose(0, 1)
        for layer in self.layers:
            z = layer(z)
            z = z[0] if isinstance(z, tuple) else z
        return self.classifier(z[:, 0] if self.batch_first else z[0])


class Tupled(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.extra = layer, nn.Identity()

    def forward(self, z: Tensor) -> tuple[Tensor, None]:
        return self.layer(z), None


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("place", [None, "dropout"])
def test_other_transformers(wrap, place):
    """Blocks are found by structure; naming the dropout before the first is the same place."""
    net, batches = Layers(wrap).double().eval(), stream(3, 6)
    adapted = acclimate.adapt(net, FOA(source=source_images(), population=4, place=place))
    for x in batches:
        adapted(x)
    assert adapted.state["source"].shape == (2, 2, 8)
    assert adapted.last.forwards == 5
    first = acclimate.adapt(net, FOA(source=source_images(), population=4))
    for x in batches:
        first(x)
    assert same(exported(first), exported(adapted))


def test_weights_that_have_no_gradient():
    """A model whose forward rounds, without a graph, like a quantised one."""

    class Rounded(VisionTransformer):
        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return super().forward((images * 16).round() / 16)

    net = Rounded(CLASSES, 8, width=WIDTH, depth=2, heads=2).eval()
    adapted = acclimate.adapt(net, FOA(source=source_images().float(), population=4))
    for x in stream(3, 6):
        assert adapted(x.float()).isfinite().all()
        assert adapted.last.updated


def test_hooks_are_gone_after_a_step():
    adapted = acclimate.adapt(vit(), FOA(source=source_images(), population=3))
    x = stream(1, 6)[0]
    adapted(x)
    with pytest.raises(ValueError, match="expected"):
        adapted(torch.zeros(4, 5, 8, 8, dtype=torch.float64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in adapted.module.modules())
    with torch.no_grad():
        assert torch.equal(adapted.module(x), vit()(x)), "the weights are the source's"


def test_foa_resumes_without_images(tmp_path):
    method, batches = FOA(source=source_images(), population=5), stream(5, 8)
    adapted = acclimate.adapt(vit(), method)
    for x in batches[:3]:
        adapted(x)
    adapted.save(tmp_path / "state")
    assert "source" not in method.config()
    loaded = acclimate.load(vit(), tmp_path / "state")
    for x in batches[3:]:
        assert torch.equal(loaded(x), adapted(x))
    assert same(exported(loaded), exported(adapted))
    copied = copy.deepcopy(adapted)
    assert torch.equal(copied(batches[0]), adapted(batches[0]))
    fresh = acclimate.adapt(vit(), method)
    for each in (loaded, adapted):
        each.reset()
        assert same(exported(each), exported(fresh))


def test_published_presets():
    assert (FOA().prompts, FOA().population, FOA().cost().forwards) == (3, 27, 28)
    assert 4 + math.floor(3 * math.log(3 * 768)) == FOA().population
    assert [FOA.preset(name).discrepancy for name in ("imagenet", "imagenet_r")] == [0.4, 0.2]
    assert (FOA().rate, FOA().shift, FOA().spread) == (0.1, 1.0, 1.0)
    assert FOA.preset("six").cost().forwards == 6


def test_without_source_images():
    with pytest.raises(ValueError, match=r"FOA\(source=images\).*choose t3a"):
        acclimate.adapt(vit(), "foa")


@pytest.mark.parametrize("source", [[], iter(()), [torch.zeros(3)], ["images"], torch.zeros(0, 3, 8, 8)])
def test_with_a_source_that_is_none(source):
    with pytest.raises(ValueError, match="source"):
        acclimate.adapt(vit(), FOA(source=source))


def test_with_broken_source_images():
    with pytest.raises(ValueError, match="not finite"):
        acclimate.adapt(vit(), FOA(source=source_images().fill_(float("nan"))))


def test_a_network_of_convolutions_has_no_tokens():
    net = ResidualNet(4, widths=(8, 8, 8), blocks=1).eval()
    with pytest.raises(ValueError, match=r"prompts among the tokens.*place=.*ResidualNet has none.*choose one"):
        acclimate.adapt(net, FOA(source=source_images().float()))


def test_a_place_that_is_none():
    with pytest.raises(ValueError, match=r"place='block' is no part of this VisionTransformer.*blocks\.0, blocks\.1"):
        acclimate.adapt(vit(), FOA(source=source_images(), place="block"))
    for place, found in (("embed", r"\[20, 3, 8, 8\]"), ("head", r"\[20, 12\]")):
        with pytest.raises(ValueError, match=rf"called with {found}, expected tokens \[N, T, 12\].*choose"):
            acclimate.adapt(vit(), FOA(source=source_images(), place=place))


def test_tokens_batch_second_are_refused():
    net = Layers(batch_first=False).double().eval()
    with pytest.raises(ValueError, match=r"features \[\(5, 8\), \(20, 8\)\], expected \[20, D\].*batch first"):
        acclimate.adapt(net, FOA(source=source_images()))


def test_rows_in_several_forwards_get_their_own_prompts():
    """As where a batch norm of its own makes the model run group after group."""
    part = nn.Identity()
    prompts = torch.arange(6.0).view(6, 1, 1).expand(6, 2, 3)
    seen = []
    with prompted(part, prompts, 1):
        for start in (0, 3, 0):
            seen.append(part(torch.full((3, 4, 3), -1.0 - start)))
    for start, z in zip((0, 3, 0), seen, strict=True):
        assert torch.equal(z[:, 1:3], prompts[start : start + 3])
        assert torch.equal(z[:, [0, 3, 4, 5]], torch.full((3, 4, 3), -1.0 - start))
    assert part(prompts) is prompts


def test_layers_of_several_widths_are_refused():
    state = acclimate.adapt(vit(), FOA(source=source_images())).state
    state.model.head = nn.Linear(5, 4).double()
    state.model.norm = nn.Sequential(state.model.norm, nn.Linear(WIDTH, 5).double())
    with layer_features(state, 1) as collect, torch.no_grad():
        state.model(source_images())
        with pytest.raises(ValueError, match=r"\[\(20, 5\), \(20, 12\)\].*one width.*Choose"):
            collect(20)


@pytest.mark.parametrize(
    "options",
    [
        *({name: value} for name in ("samples", "batch_size", "prompts", "rows_at_once") for value in (0, 2.5, None)),
        *({"population": value} for value in (2, 2.5, True)),
        *({name: -1} for name in ("discrepancy", "shift", "leading", "rate")),
        *({"spread": value} for value in (0, math.inf)),
        {"rate": 1.5},
    ],
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        FOA(**options)
