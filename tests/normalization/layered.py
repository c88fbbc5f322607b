"""A deep net, and its answers under shallow statistics layer by layer in float64, with loops for the groups."""

from __future__ import annotations

import torch
from torch import nn

LAYERS = 10


def deep_net(seed: int = 0) -> nn.Sequential:
    """Ten convolutions with batch norms whose source statistics are away from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[nn.Module] = []
    for number in range(LAYERS):
        parts += [nn.Conv2d(3 if number == 0 else 5, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU()]
    net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).double()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(5, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(5, generator=generator) + 0.3)
                module.weight.copy_(torch.rand(5, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(5, generator=generator) * 0.3)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                fan = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5)
    nn.init.zeros_(net[-1].bias)
    return net.eval()


def images(count: int, mixed: bool, seed: int = 0) -> torch.Tensor:
    """Noise of one strength, or of two very different ones: domains that differ in how much an image varies."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, 6, 6, generator=generator, dtype=torch.float64)
    scale = torch.where(torch.arange(count) % 2 == 0, 0.02 if mixed else 1.0, 2.0 if mixed else 1.0).view(-1, 1, 1, 1)
    return 0.5 + 0.3 * scale * noise


def alike(means: torch.Tensor) -> list[list[int]]:
    """Groups of rows: each is joined to the row at the smallest angle to it, and so are those joined to either."""
    unit = means / means.norm(dim=1, keepdim=True)
    groups = [{i} for i in range(len(means))]
    for i in range(len(means)):
        other = max((j for j in range(len(means)) if j != i), key=lambda j: float(unit[i] @ unit[j]))
        joined = next(g for g in groups if i in g) | next(g for g in groups if other in g)
        groups = [g for g in groups if not g & joined] + [joined]
    return [sorted(g) for g in groups]


@torch.no_grad()
def oracle(net: nn.Sequential, x: torch.Tensor, share: float = 0.0, groups: str = "never", **o) -> tuple:
    """Layer by layer; groups by explicit loops over their pixels. Returns the answer and the spread."""
    depth, prior, watch, level = (
        o.get(k, v) for k, v in (("depth", 0.5), ("prior", 8.0), ("watch", 0.3), ("level", 0.54))
    )
    place, spreads = 0, []
    for module in net:
        if not isinstance(module, nn.BatchNorm2d):
            x = module(x)
            continue
        source_mean, source_var = module.running_mean, module.running_var
        pi = prior / (prior + len(x))
        at = place / LAYERS
        weight = pi if at < depth else 1 - share * (1 - pi)
        mean = (weight * source_mean + (1 - weight) * x.mean((0, 2, 3))).expand(len(x), -1).clone()
        var = (weight * source_var + (1 - weight) * x.var((0, 2, 3), correction=0)).expand(len(x), -1).clone()
        if place > 0 and at < watch and len(x) > 1:
            spreads.append((x.var((2, 3), correction=0) + 1e-3 * source_var).log().std(0).mean())
        if watch <= at < depth and (groups == "always" or (groups == "auto" and torch.stack(spreads).mean() > level)):
            for rows in alike(x.mean((2, 3))):
                mean[rows] = 0.6 * source_mean + 0.4 * x[rows].mean((0, 2, 3))
                var[rows] = 0.6 * source_var + 0.4 * x[rows].var((0, 2, 3), correction=0)
        x = (x - mean[..., None, None]) / (var[..., None, None] + module.eps).sqrt()
        x = x * module.weight.view(-1, 1, 1) + module.bias.view(-1, 1, 1)
        place += 1
    return x, torch.stack(spreads).mean() if spreads else None
