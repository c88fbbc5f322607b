"""TTN: the mixture, the prior by one backward for each image, and the training of its weights written out."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acclimate
from acclimate.core.inputs import Call
from acclimate.methods.bn import BN
from acclimate.methods.tent import Tent
from acclimate.normalization.learned_mixture import LearnedMixture, prior
from conformance.models import MODELS
from conformance.tools import assert_same, book
from methods.reference import small_net, stream
from normalization.test_statistics import Whole, fixture


def dimmed(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation without chance."""
    return (x * 0.6 + 0.1 * x.flip(3)).clamp(0, 1)


def pictures(count: int = 24) -> tuple[Tensor, Tensor]:
    return torch.cat(stream(count // 12, seed=4)), torch.arange(count) % 4


def moved_net() -> nn.Module:
    """With statistics of the source that are not the batch's, and one norm without weight and bias."""
    net = small_net()
    net.insert(6, nn.BatchNorm2d(8, affine=False).double())
    generator = torch.Generator().manual_seed(5)
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return net.eval()


def weights(adapted: acclimate.Adapted) -> Tensor:
    return torch.cat([layer.get_buffer("test_weight") for layer in adapted.state.layers])


def test_published_fixture():
    layer, x = fixture()
    y = acclimate.adapt(Whole(layer), "source", normalization=LearnedMixture(test_weight=0.4))(x)
    assert y[0, :, 0, 0].tolist() == pytest.approx((-1.638111, -0.074469, 0.290284), abs=2e-6)
    assert y[5, :, 1, 1].tolist() == pytest.approx((1.068333, 0.652485, 2.334628), abs=2e-6)
    assert float(y.sum()) == pytest.approx(16.467005, abs=2e-5)
    assert float((y * y).sum()) == pytest.approx(152.740184, abs=1e-4)


@pytest.mark.parametrize(("weight", "name"), [(1.0, "batch"), (0.0, "source")])
def test_its_ends_are_batch_and_source(weight, name):
    layer, x = fixture()
    found = acclimate.adapt(Whole(layer), "source", normalization=LearnedMixture(test_weight=weight))(x)
    assert torch.allclose(found, acclimate.adapt(Whole(layer), "source", normalization=name)(x), rtol=0, atol=1e-12)


def test_published_prior():
    assert prior(torch.tensor([0.1, 0.3, 0.5])).tolist() == pytest.approx([0, 0.25, 1])
    assert prior(torch.full((4,), 0.2)).tolist() == [0, 0, 0, 0]


def by_images(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """`d` of each channel: one backward for each image and its copy, on torch's own layers with weight and bias."""
    twin = copy.deepcopy(net)
    for module in twin:
        if isinstance(module, nn.BatchNorm2d) and not module.affine:
            module.weight = nn.Parameter(torch.ones(module.num_features, dtype=torch.float64))
            module.bias = nn.Parameter(torch.zeros(module.num_features, dtype=torch.float64))
    norms = [module for module in twin if isinstance(module, nn.BatchNorm2d)]
    alike = []
    for image, label in zip(images[:, None], labels[:, None], strict=True):
        sides = []
        for view in (image, dimmed(image, torch.Generator())):
            twin.zero_grad()
            F.cross_entropy(twin(view), label).backward()
            sides.append(torch.stack([torch.cat([getattr(n, k).grad for n in norms]) for k in ("weight", "bias")]))
        (a, b), (c, d) = sides
        cosine = (a * c + b * d) / ((a * a + b * b) * (c * c + d * d)).sqrt()
        alike.append(torch.where((a == 0) & (b == 0) & (c == 0) & (d == 0), 1.0, cosine))
    return 1 - torch.stack(alike).mean(0)


@pytest.mark.parametrize("batch_size", [5, 24])
def test_the_prior_by_one_backward_for_each_image(batch_size):
    images, labels = pictures()
    settings = LearnedMixture(source=(images, labels), epochs=0, batch_size=batch_size, views=dimmed)
    adapted = acclimate.adapt(moved_net(), "bn", normalization=settings)
    d = by_images(moved_net(), images, labels)
    expected = ((d - d.min()) / (d.max() - d.min())) ** 2
    assert torch.allclose(weights(adapted), expected, rtol=0, atol=1e-6)
    assert 0.01 < float(expected.mean()) < 0.9, "there is something to tell apart"


def written(net: nn.Module, a: list[Tensor], x: Tensor) -> Tensor:
    """The network with its norms as formulas."""
    numbers = iter(a)
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            w = next(numbers).view(1, -1, 1, 1)
            s_mean, s_var = (each.view(1, -1, 1, 1) for each in (module.running_mean, module.running_var))
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
            m, v = w * mean + (1 - w) * s_mean, w * var + (1 - w) * s_var + w * (1 - w) * (mean - s_mean) ** 2
            x = (x - m) / (v + module.eps).sqrt()
            if module.affine:
                x = x * module.weight.view(1, -1, 1, 1) + module.bias.view(1, -1, 1, 1)
        else:
            x = module(x)
    return x


@pytest.mark.parametrize("penalty", [0.0, 1.0, 30.0])
def test_training_moves_the_weights_alone_as_written_out(penalty):
    """Four epochs of one batch, whatever its order; held to [0, 1] after each step."""
    images, labels = pictures()
    settings = LearnedMixture(
        source=(images, labels), epochs=4, learning_rate=0.2, batch_size=24, penalty=penalty, views=dimmed
    )
    net = moved_net()
    adapted = acclimate.adapt(net, Tent(normalization=settings))
    start = acclimate.adapt(net, "bn", normalization=LearnedMixture(source=(images, labels), epochs=0, views=dimmed))
    expected = weights(start).clone()
    a = [each.clone().requires_grad_() for each in expected.split([6, 8, 8])]
    optimizer = torch.optim.Adam(a, lr=0.2)
    for _ in range(4):
        loss = F.cross_entropy(written(net, a, dimmed(images, torch.Generator())), labels)
        loss = loss + penalty * ((torch.cat(a) - expected) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for each in a:
            each.data.clamp_(0, 1)
    assert torch.allclose(weights(adapted), torch.cat(a).detach(), rtol=0, atol=1e-6)
    assert not torch.allclose(weights(adapted), expected, atol=0.05)
    for name, weight in adapted.state.weights.items():
        assert torch.equal(weight, net.get_parameter(name)), "nothing else has learned"
    assert not weights(adapted).requires_grad and adapted.state.batches == 0
    x = stream(1)[0]
    with torch.no_grad():
        assert torch.allclose(adapted(x), written(net, [each.detach() for each in a], x), rtol=0, atol=1e-5)


def test_learning_lowers_the_loss_on_augmented_images():
    images, labels = pictures()
    given = {"source": (images, labels), "views": dimmed, "penalty": 0.0, "learning_rate": 0.05}
    losses = []
    for epochs in (0, 20):
        adapted = acclimate.adapt(moved_net(), "bn", normalization=LearnedMixture(epochs=epochs, **given))
        losses.append(float(F.cross_entropy(adapted(dimmed(images, torch.Generator())), labels)))
    assert losses[1] < 0.95 * losses[0]


def test_on_the_stream_nothing_moves():
    adapted = acclimate.adapt(moved_net(), "bn", normalization=LearnedMixture(source=pictures(), epochs=1))
    before = weights(adapted).clone()
    for x in stream(3):
        adapted(x)
    assert torch.equal(weights(adapted), before)
    adapted.reset()
    assert torch.equal(weights(adapted), before), "a reset keeps what the source has taught"


def test_a_saved_adaptation_needs_no_images(tmp_path: Path):
    adapted = acclimate.adapt(moved_net(), BN(normalization=LearnedMixture(source=pictures(), epochs=1)))
    adapted(stream(1)[0])
    adapted.save(tmp_path / "state")
    loaded = acclimate.load(moved_net(), tmp_path / "state")
    assert_same(book(loaded), book(adapted), "state after load()")
    x = stream(2)[1]
    assert torch.equal(loaded(x), adapted(x))
    loaded.reset()
    assert torch.equal(weights(loaded), weights(adapted))


def test_a_number_for_each_layer():
    adapted = acclimate.adapt(moved_net(), "bn", normalization=LearnedMixture(test_weight=(0.1, 0.5, 1.0)))
    assert [float(layer.get_buffer("test_weight").unique()) for layer in adapted.state.layers] == pytest.approx(
        [0.1, 0.5, 1.0]
    )
    with pytest.raises(ValueError, match="2 numbers for 3 batch norms"):
        acclimate.adapt(moved_net(), "bn", normalization=LearnedMixture(test_weight=(0.1, 0.5)))


def test_without_source_it_says_what_to_choose():
    with pytest.raises(ValueError, match=r"labelled source images.*ttn:constant"):
        acclimate.adapt(moved_net(), "bn", normalization="ttn")
    with pytest.raises(ValueError, match="expected images and labels"):
        acclimate.adapt(moved_net(), "bn", normalization=LearnedMixture(source=pictures()[0]))
    with pytest.raises(ValueError, match="could not measure the source"):
        acclimate.adapt(moved_net(), "bn", normalization=LearnedMixture(source=(pictures()[0], torch.arange(24))))
    with pytest.raises(ValueError, match=r"views of ttn.*in \[0, 1\]"):
        images, labels = pictures()
        acclimate.adapt(moved_net(), "bn", normalization=LearnedMixture(source=(images * 5, labels)))


def test_models_without_batch_norm_need_no_images():
    factory, batch = MODELS["group_norm"]
    assert acclimate.adapt(factory(), "tent", normalization="ttn")(batch(0)).isfinite().all()


def test_gradients_reach_what_is_before():
    """The batch's part of the statistics is in the graph."""
    layer, x = fixture()
    adapted = acclimate.adapt(Whole(layer), "source", normalization=LearnedMixture(test_weight=0.3))
    adapted.state.begin(Call((x,), {}, 0))
    assert torch.autograd.gradcheck(adapted.module, x.requires_grad_())


@pytest.mark.parametrize(
    "bad",
    [{"test_weight": 1.5}, {"penalty": -1}, {"learning_rate": 0}, {"epochs": -1}, {"batch_size": 0}, {"views": 3}],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must"):
        LearnedMixture(**bad)
