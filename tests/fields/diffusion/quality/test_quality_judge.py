"""What a classifier sees: its own stages by hand, and pictures as it was taught them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from acclimate.fields.diffusion.quality import Judge
from acclimate.models.residual import digits_resnet
from acclimate.streams.datasets import load_dataset


def test_the_distance_is_that_of_the_stages_by_hand() -> None:
    net = digits_resnet(seed=3)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2))

    def maps(images: torch.Tensor) -> list[torch.Tensor]:
        first = F.relu(net.bn1(net.conv1(net.normalised((images + 1) / 2))))
        second = net.layer2(net.layer1(first))
        return [net.layer1(first), second, net.layer3(second)]

    with torch.no_grad():
        expected = torch.zeros(4)
        for f, g in zip(maps(x), maps(y), strict=True):
            cosine = (f * g).sum(1) / (f.norm(dim=1) * g.norm(dim=1)).clamp_min(1e-12)
            alive = (f.norm(dim=1) > 0).float() + (g.norm(dim=1) > 0).float()
            expected += (alive - 2 * cosine).mean((1, 2)) / 3
    judge = Judge(net)
    assert judge.distance(x, y).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert judge.distance(x, x).tolist() == [0.0] * 4
    with torch.no_grad():
        assert torch.allclose(judge.vectors(x), maps(x)[-1].mean((2, 3)), atol=1e-5)


def test_grey_digits_of_half_the_size_are_named_as_well_as_the_data_themselves() -> None:
    data = load_dataset("digits", "test")
    small = 2 * F.avg_pool2d(data.read(torch.arange(300)).float() / 255, 2)[:, :1] - 1
    judge = Judge.of("digits")
    right = (judge.named(small) == data.labels[:300]).float().mean()
    assert small.shape == (300, 1, 16, 16) and right > 0.93
    assert judge.vectors(small).shape == (300, 32)


def test_models_and_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="stages of blocks"):
        Judge(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    judge = Judge(digits_resnet())
    with pytest.raises(ValueError, match=r"\[N, 1, H, W\]"):
        judge.named(torch.zeros(2, 4, 32, 32))
    with pytest.raises(ValueError, match="another"):
        judge.distance(torch.zeros(1, 1, 16, 16), torch.zeros(2, 1, 16, 16))
