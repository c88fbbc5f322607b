"""Scores of diversity: published numbers, a loop in plain Python, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch

from acclimate.models import source_model
from acclimate.parts.diversity.score import diversity_angles, diversity_score, energy_score
from acclimate.streams import EXTRA_CORRUPTIONS, open_stream
from normalization.test_statistics import fixture

SOURCE_MEAN = torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)


def features() -> torch.Tensor:
    return fixture()[1]


ANGLES = [
    ("source", (1.642210, 0.652404, 2.019242, 0.554341, 1.712904, 0.416003), 0.409051, 0.639571),
    ("sample", (0.498501, 0.274197, 0.433926, 0.200470, 0.540758, 0.768556), 0.034242, 0.185046),
]


@pytest.mark.parametrize(("apex", "angles", "variance", "deviation"), ANGLES, ids=lambda v: str(v)[:6])
def test_published_angles(apex, angles, variance, deviation):
    found = diversity_angles(features(), SOURCE_MEAN, apex)
    assert found.tolist() == pytest.approx(angles, abs=2e-6)
    assert float(diversity_score(features(), SOURCE_MEAN, apex, "var")) == pytest.approx(variance, abs=2e-6)
    assert float(diversity_score(features(), SOURCE_MEAN, apex, "std")) == pytest.approx(deviation, abs=2e-6)


def test_energy_is_the_scatter_of_logarithms():
    """Number by number, from the definition."""
    x, n = features().tolist(), 6
    total = 0.0
    for c in range(3):
        logs = []
        for b in range(n):
            squares = [(value - SOURCE_MEAN[c].item()) ** 2 for row in x[b][c] for value in row]
            logs.append(math.log(sum(squares) / len(squares)))
        mean = sum(logs) / n
        total += sum((value - mean) ** 2 for value in logs) / n
    assert float(energy_score(features(), SOURCE_MEAN)) == pytest.approx(math.sqrt(total / 3), rel=1e-12)


@pytest.mark.parametrize("score", ["std", "var", "energy"])
def test_order_and_scale_do_not_matter(score):
    """Rows may come in any order; features and source in any unit."""
    x = features()
    expected = diversity_score(x, SOURCE_MEAN, "source", score)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(diversity_score(x[order], SOURCE_MEAN, "source", score), expected)
    torch.testing.assert_close(diversity_score(x * 7, SOURCE_MEAN * 7, "source", score), expected)


@pytest.mark.parametrize("score", ["std", "var", "energy"])
def test_one_sample_and_rows_without_positions(score):
    assert float(diversity_score(features()[:1], SOURCE_MEAN, "source", score)) == 0
    flat = features()[..., :1, :1]
    found = diversity_score(flat[..., 0, 0], SOURCE_MEAN, "source", score)
    torch.testing.assert_close(found, diversity_score(flat, SOURCE_MEAN, "source", score))


def test_half_precision_is_computed_in_single():
    x = features().to(torch.bfloat16)
    found = diversity_score(x, SOURCE_MEAN.to(torch.bfloat16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, diversity_score(x.float(), SOURCE_MEAN.to(torch.bfloat16).float()))


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.usefixtures("shared")
def test_mixed_batches_of_cifar_score_higher():
    """100 batches of one corruption against the same images with a corruption drawn for each.

    Energies within the first stage tell them apart; angles at the stem do so for most corruptions only: images
    of one hard corruption scatter more than a mixture (found on these four: see docs/results.md).
    """
    net = source_model("cifar10")
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    seen: dict[int, torch.Tensor] = {}
    for place in (0, 5):
        norms[place].register_forward_pre_hook(lambda m, a, place=place: seen.update({place: a[0]}))
    batches = list(
        open_stream("cifar10:continual", split="train", corruptions=EXTRA_CORRUPTIONS, size=256, batch_size=256)
    )
    domains = torch.stack([batch.images for batch in batches])
    generator, energy, angle = torch.Generator().manual_seed(0), 0, 0
    with torch.no_grad():
        for number in range(100):
            rows = torch.randperm(256, generator=generator)[:32]
            each = torch.randint(4, (32,), generator=generator)
            scores = []
            for x in (domains[number % 4, rows], domains[each, rows]):
                net(x)
                means = [norms[place].running_mean for place in (0, 5)]
                scores.append((diversity_score(seen[0], means[0]), energy_score(seen[5], means[1])))
            (single_angle, single_energy), (mixed_angle, mixed_energy) = scores
            energy += int(mixed_energy > single_energy)
            angle += int(mixed_angle > single_angle)
    assert energy >= 90
    assert angle >= 50
