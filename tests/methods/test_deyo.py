"""DeYO against a float64 oracle; its ways to destroy an image; counted passes."""

from __future__ import annotations

import math

import pytest
import torch

import acclimate
from acclimate.methods.deyo import DeYO
from acclimate.parts.destruction import occluded, shuffled_patches, shuffled_pixels
from methods.reference import entropy
from methods.selected import NETS, Counted, affine, group_net, nearest, oracle_net, uneven

SETTINGS = {"learning_rate": 1e-2, "margin": 0.7, "reference": 0.6, "drop": 0.01}


def covered(x: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel: 8 x 8 images, their middle 4 x 4 in the mean colour."""
    out = x.clone()
    for image, target in zip(x, out, strict=True):
        for channel in range(3):
            colour = image[channel].sum() / 64
            for row in range(2, 6):
                for column in range(2, 6):
                    target[channel, row, column] = colour
    return out


def oracle(net, batches, *, margin, reference, drop, learning_rate):
    opt, log = torch.optim.Adam(affine(net), lr=learning_rate), []
    for x in batches:
        z = net(x)
        log.append({"answer": z.detach().clone(), "sure": 0, "chosen": 0})
        classes = math.log(z.shape[1])
        sure = [i for i, h in enumerate(entropy(z)) if h < margin * classes]
        log[-1]["sure"] = len(sure)
        if not sure:
            continue
        with torch.no_grad():
            broken = net(covered(x[sure])).softmax(1)
        terms = []
        for i, p_broken in zip(sure, broken, strict=True):
            p = z[i].softmax(0)
            fall = float((p.max() - p_broken[p.argmax()]).detach())
            if fall > drop:
                doubt = -(p * p.log()).sum()
                terms.append((math.exp(reference * classes - float(doubt.detach())) + math.exp(fall)) * doubt)
        log[-1]["chosen"] = len(terms)
        if terms:
            opt.zero_grad()
            (sum(terms) / len(terms)).backward()
            opt.step()
    return log


@pytest.mark.parametrize("kind", NETS)
def test_equals_the_oracle(kind):
    twin, batches = oracle_net(kind), uneven(6)
    log = oracle(twin, batches, **SETTINGS)
    adapted = acclimate.adapt(NETS[kind](), DeYO(destroy="occlusion", **SETTINGS))
    for x, step in zip(batches, log, strict=True):
        assert torch.allclose(adapted(x), step["answer"], rtol=0, atol=1e-9)
        assert adapted.last.values["sure"] == step["sure"]
        assert adapted.last.selected == step["chosen"]
    assert nearest(adapted, twin) < 1e-9
    assert any(0 < step["chosen"] < step["sure"] < 12 for step in log)


def test_patches_are_permuted_within_each_image():
    """Every patch is still there, in another place, and images differ in where."""
    x = torch.arange(5 * 3 * 8 * 12, dtype=torch.float64).view(5, 3, 8, 12)
    found = shuffled_patches(x, torch.Generator().manual_seed(0))

    def patches(image):
        return [image[:, r : r + 2, c : c + 3] for r in range(0, 8, 2) for c in range(0, 12, 3)]

    orders = []
    for before, after in zip(x, found, strict=True):
        places = {float(patch[0, 0, 0]): number for number, patch in enumerate(patches(before))}
        order = [places[float(patch[0, 0, 0])] for patch in patches(after)]
        for number, patch in zip(order, patches(after), strict=True):
            assert torch.equal(patch, patches(before)[number])
        assert sorted(order) == list(range(16))
        orders.append(tuple(order))
    assert len(set(orders)) == 5
    assert tuple(range(16)) not in orders


def test_patches_of_odd_sizes():
    """Scaled to multiples of four and back: the size stays, a flat image stays flat, and half precision too."""
    generator = torch.Generator().manual_seed(0)
    x = torch.full((2, 3, 9, 14), 0.25)
    for image in (x, x.bfloat16()):
        found = shuffled_patches(image, generator)
        assert found.shape == x.shape
        assert found.dtype == image.dtype
        assert torch.allclose(found.float(), x)
    with pytest.raises(ValueError, match="at least 4 x 4 pixels, found 3 x 14"):
        shuffled_patches(x[:, :, :3], generator)


def test_patches_of_even_sizes_are_not_scaled():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    found = shuffled_patches(x, torch.Generator().manual_seed(0))
    assert torch.equal(found.flatten(2).sort(2).values, x.flatten(2).sort(2).values)


def test_pixels_of_all_images_go_the_same_way():
    x = torch.arange(2 * 3 * 20.0).view(2, 3, 4, 5)
    found = shuffled_pixels(x, torch.Generator().manual_seed(0))
    place = found[0, 0].flatten().argsort()
    assert not torch.equal(place, torch.arange(20))
    assert torch.equal(found.flatten(2)[:, :, place], x.flatten(2))


def test_occlusion_is_the_middle_and_leaves_the_input():
    x = uneven(1)[0]
    before = x.clone()
    assert torch.allclose(occluded(x, torch.Generator()), covered(x), rtol=0, atol=1e-14)
    assert torch.equal(x, before)
    large = occluded(torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)), torch.Generator())
    assert large[0, 0, 56:168, 56:168].unique().numel() == 1
    assert large[0, 0, 55].unique().numel() > 50
    assert large[0, 0, 168].unique().numel() > 50


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("options", [{"margin": 0.0}, {"drop": 1.0}])
def test_nothing_is_learned_where_nothing_is_chosen(kind, options):
    adapted = acclimate.adapt(NETS[kind](), DeYO(**options))
    weights = {name: weight.detach().clone() for name, weight in adapted.state.weights.items()}
    for x in uneven(3):
        assert adapted(x).isfinite().all()
        assert not adapted.last.updated
        assert "destroyed" in adapted.last.reason
    assert adapted.state.batches == 3
    assert all(torch.equal(weight, weights[name]) for name, weight in adapted.state.weights.items())


def test_counted_passes():
    """One forward, one of the sure rows without a graph, and with independent rows one of the chosen with a graph."""
    for kind in NETS:
        net = Counted(NETS[kind]())
        adapted = acclimate.adapt(net, DeYO(destroy="occlusion", **SETTINGS))
        learned = 0
        for x in uneven(6):
            adapted.state["selected_share"].fill_(0.0)
            net.rows.clear()
            adapted(x)
            sure, chosen = int(adapted.last.values["sure"]), int(adapted.last.selected)
            expected = [(12, kind == "batch_norm")] + [(sure, False)] * (sure > 0)
            assert net.rows == expected + [(chosen, True)] * (chosen > 0 and kind == "group_norm")
            learned += chosen
        assert learned > 6


def test_inputs_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match=r"views of DeYO are made of images \[N, C, H, W\], found shape \[12, 3, 64\]"):
        acclimate.adapt(group_net(), "deyo")(uneven(1)[0].flatten(2))


def test_published_presets():
    table = {
        "imagenet": (0.5, 0.4, 0.3, 2.5e-4),
        "wild": (0.5, 0.4, 0.2, 2.5e-4),
        "vit": (0.5, 0.4, 0.2, 1e-3),
        "waterbirds": (0.5, 0.4, 0.5, 1.25e-3),
        "colored-mnist": (1.0, 1.0, 0.5, 1.25e-3),
        "cifar": (0.5, 0.4, 0.2, 1e-3),
    }
    for name, row in table.items():
        p = DeYO.preset(name)
        assert (p.margin, p.reference, p.drop, p.learning_rate) == row
        assert p.optimizer == ("adam" if name == "cifar" else "sgd")


@pytest.mark.parametrize("options", [{"destroy": "blur"}, {"drop": 2}, {"margin": 2}, {"full_batch": -1}])
def test_bad_settings(options):
    with pytest.raises(ValueError, match="must"):
        DeYO(**options)
