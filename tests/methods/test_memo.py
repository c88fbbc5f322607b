"""MEMO against a float64 oracle of its specification, its golden vector, and what each image must not know."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import acclimate
from acclimate.functional import entropy
from acclimate.methods.memo import MEMO, mean_log_probability, plain_sgd
from methods.reference import small_net, stream


def shaded(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * (0.4 + torch.rand(len(x), 1, 1, 1, generator=generator, dtype=x.dtype))


class Prior(nn.Module):
    """A batch norm by 16/17 of the source's statistics and 1/17 of the forward's own, variance unbiased."""

    def __init__(self, source: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias = source.weight, source.bias
        self.mean, self.var, self.eps = source.running_mean, source.running_var, source.eps

    def forward(self, x: Tensor) -> Tensor:
        mean = 16 / 17 * self.mean + 1 / 17 * x.mean((0, 2, 3))
        var = 16 / 17 * self.var + 1 / 17 * x.transpose(0, 1).flatten(1).var(1)
        x = (x - mean.view(1, -1, 1, 1)) / (var.view(1, -1, 1, 1) + self.eps).sqrt()
        return x * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def source_net() -> nn.Module:
    net, generator = small_net(), torch.Generator().manual_seed(8)
    for norm in (net[1], net[4]):
        norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator) * 0.3)
        norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
    return net


def with_prior() -> nn.Module:
    net = copy.deepcopy(source_net())
    net[1], net[4] = Prior(net[1]), Prior(net[4])
    return net


def grouped() -> nn.Module:
    net = small_net()
    net[1], net[4] = nn.GroupNorm(2, 6).double(), nn.GroupNorm(4, 8).double()
    return net.eval()


def oracle(make, batches: list[Tensor], optimizer: str, learning_rate: float, copies: int) -> list[Tensor]:
    """Each image: a fresh model and optimiser, one step on the entropy of the mean softmax, the clean answer."""
    generator = acclimate.adapt(small_net(), "memo").state.generator("views")
    answers = []
    for x in batches:
        rows = []
        for image in x:
            net = make()
            opt = (
                torch.optim.SGD(net.parameters(), lr=learning_rate)
                if optimizer == "sgd"
                else torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.01)
            )
            q = net(shaded(torch.stack([image] * copies), generator)).softmax(1).mean(0)
            loss = -(q * q.log()).sum()
            loss.backward()
            opt.step()
            with torch.no_grad():
                rows.append(net(image[None]))
        answers.append(torch.cat(rows))
    return answers


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("given", "twin"), [(source_net, with_prior), (grouped, grouped)], ids=["batch", "group"])
def test_equals_the_oracle(given, twin, optimizer):
    rate = 0.05 if optimizer == "sgd" else 1e-3
    factory = plain_sgd if optimizer == "sgd" else "adamw"
    method = MEMO(learning_rate=rate, copies=6, crop="none", views=shaded, optimizer=factory)
    batches = stream(2, size=4)
    adapted = acclimate.adapt(given(), method)
    for x, expected in zip(batches, oracle(twin, batches, optimizer, rate, 6), strict=True):
        assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-9)
        assert adapted.last.forwards == pytest.approx(7)
        assert adapted.last.backwards == 4


def test_golden_vector():
    i, c = torch.arange(4, dtype=torch.float64), torch.arange(5, dtype=torch.float64)
    z = 2 * torch.sin(1.3 * i[:, None] + 0.7 * c)
    assert float(entropy(mean_log_probability(z))) == pytest.approx(1.565795, abs=5e-7)
    assert torch.allclose(mean_log_probability(z).exp(), z.softmax(1).mean(0, keepdim=True), atol=1e-12)


def test_far_tails_do_not_underflow():
    """Logits of +-2000 in bfloat16: probabilities are 0 and 1, their mean is a half each, its entropy ln 2."""
    z = torch.tensor([[2000.0, -2000.0], [-2000.0, 2000.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = entropy(mean_log_probability(z)).mean()
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(0.693147, abs=1e-5)
    assert bool(gradient.isfinite().all())


def test_an_answer_depends_on_neither_order_nor_company():
    """But for its copies: with copies that draw nothing, an image alone has the answer it has in a batch."""
    x = stream(1, size=5)[0]
    method = MEMO(copies=3, crop="none", views=lambda x, g: x * 0.9, learning_rate=0.05)
    whole = acclimate.adapt(source_net(), method)(x)
    adapted = acclimate.adapt(source_net(), method)
    for row in (3, 0, 4, 1, 2):
        assert torch.allclose(adapted(x[row : row + 1]), whole[row : row + 1], rtol=0, atol=1e-12)


def test_moments_start_anew_with_each_image():
    adapted = acclimate.adapt(source_net(), MEMO(copies=2, optimizer="adamw"))
    for x in stream(2, size=3):
        adapted(x)
    steps = [t for path, t in adapted.state.table.optimizers["optimizer"].tensors() if path.endswith("/step")]
    assert steps
    assert all(float(step) == 1 for step in steps)


def test_each_image_has_copies_of_its_own_draw():
    """The generator goes on from image to image and from batch to batch."""
    seen: list[Tensor] = []
    x = stream(1, size=1)[0].expand(2, -1, -1, -1) * torch.tensor([1.0, 0.5]).view(-1, 1, 1, 1)
    adapted = acclimate.adapt(
        source_net(), MEMO(copies=4, crop="none", views=lambda x, g: seen.append(shaded(x, g)) or seen[-1])
    )
    for _ in range(2):
        adapted(x)
    shades = [(copies / (x[0] if n % 2 == 0 else x[1])).mean((1, 2, 3)) for n, copies in enumerate(seen)]
    assert len(torch.cat(shades).mul(1e6).round().unique()) == 16


def test_it_lowers_the_entropy_of_the_mean_answer():
    """On the same copies, after the step it took."""
    x = stream(1, size=1)[0]
    kept: list[Tensor] = []
    views = lambda x, g: kept.append(shaded(x, g)) or kept[-1]  # noqa: E731
    adapted = acclimate.adapt(source_net(), MEMO(copies=16, crop="none", views=views, learning_rate=0.01))
    adapted(x)
    before = adapted.last.loss
    with adapted.frozen():
        after = float(entropy(mean_log_probability(adapted(kept[0]))))
    assert after < before - 1e-3


class Structured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = source_net()

    def forward(self, x: Tensor, weights: Tensor) -> dict[str, object]:
        logits = self.net(x) * weights[:, None]
        return {"features": logits[:, :2] + 1, "logits": logits, "scale": torch.tensor(2.0), "n": 3}


def test_outputs_and_further_arguments_follow_each_image():
    """Every part of the answer has a row for each image, by the weights of that image."""
    x, weights = stream(1, size=3)[0], torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    method = MEMO(copies=3, crop="none", views=lambda x, g: x * 0.9, learning_rate=0.05)
    found = acclimate.adapt(Structured(), method)(x, weights)
    assert list(found) == ["features", "logits", "scale", "n"]
    assert found["scale"].ndim == 0
    assert torch.equal(found["features"], found["logits"][:, :2] + 1)
    for row in range(3):
        alone = acclimate.adapt(Structured(), method)(x[row : row + 1], weights[row : row + 1])
        assert torch.allclose(found["logits"][row], alone["logits"][0], rtol=0, atol=1e-12)


def test_a_broken_update_is_answered_by_the_mean_of_the_copies():
    """Weights of infinity give no answer; the step is refused, and users still get numbers."""
    x = stream(1, size=2)[0]

    def explode(parameters, lr):
        return torch.optim.SGD(parameters, lr=1e300)

    adapted = acclimate.adapt(source_net(), MEMO(copies=4, crop="none", views=shaded, optimizer=explode))
    found = adapted(x)
    assert bool(found.isfinite().all())
    assert not adapted.last.updated
    assert torch.allclose(found.exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_defaults_make_copies_of_images_only():
    x = stream(1, size=2)[0]
    with pytest.raises(ValueError, match=r"memo.*\[0, 1\], found values from -1.99"):
        acclimate.adapt(source_net(), MEMO(copies=2))(x * 4 - 2)
    acclimate.adapt(source_net(), MEMO(copies=2, views=shaded))(x * 4 - 2)


def test_published_presets():
    rows = [MEMO.preset(name) for name in ("cifar", "imagenet", "transformer")]
    assert MEMO() == rows[0]
    assert [p.learning_rate for p in rows] == [0.005, 2.5e-4, 1e-5]
    assert [p.copies for p in rows] == [32, 64, 64]
    assert [p.crop for p in rows] == ["padded", "resized", "resized"]
    for preset, momentum, decay in zip(rows, (0, 0, None), (0, 0, 0.01), strict=True):
        (group,) = acclimate.adapt(small_net(), preset).state.table.optimizers["optimizer"].optimizer.param_groups
        assert group.get("momentum") == momentum
        assert group["weight_decay"] == decay


@pytest.mark.parametrize(
    "options", [{"learning_rate": 0}, {"copies": 0}, {"crop": "centre"}, {"steps": 2}], ids=lambda o: next(iter(o))
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        MEMO(**options)
