"""Float64 oracles, written from the formulas of the papers, one batch at a time, with nothing from the library."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def small_net(seed: int = 0, classes: int = 4) -> nn.Module:
    """Conv, batch norm, conv with bias, batch norm, linear head; float64, biases of norms away from zero."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, classes),
    ).double()
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * 0.4 + (1.0 if parameter.ndim == 1 and len(parameter) in (6, 8) else 0.0))
    return net.eval()


def far_net() -> nn.Module:
    """`small_net` with source statistics away from 0 and 1."""
    made = small_net()
    generator = torch.Generator().manual_seed(5)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return made


def stream(batches: int = 4, size: int = 12, seed: int = 1) -> list[Tensor]:
    """Batches of images in [0, 1] whose contrast changes from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(size, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(batches)]
    return [0.5 + (image - 0.5) * (1.0 - 0.25 * (number % 3)) for number, image in enumerate(images)]


def by_batch(net: nn.Module) -> nn.Module:
    """A copy whose batch norms use the statistics of the batch: torch's own layer without running buffers."""
    twin = copy.deepcopy(net)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return twin


def entropy(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


def palm(net: nn.Module, batches: list[Tensor], view, *, classes: int = 4, **o) -> tuple[list[Tensor], nn.Module, list]:
    """The ten steps of the specification, tensor by tensor, with torch's Adam built anew for each batch."""
    twin = by_batch(net)
    theta = {
        f"{name}.{key}": p
        for name, m in twin.named_modules()
        if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))
        for key, p in m.named_parameters(recurse=False)
    }
    average = {k: torch.zeros_like(p) for k, p in theta.items()}
    rate: dict[str, Tensor | None] = dict.fromkeys(theta)
    groups = [{"params": [p]} for p in theta.values()]
    if o.get("optimizer") == "sgd":
        persistent = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    else:
        persistent = torch.optim.Adam(groups, lr=1.0, weight_decay=o["weight_decay"])
    answers, log = [], []
    for x in batches:
        z = twin(x)
        answers.append(z.detach().clone())
        scaled = z / o["temperature"]
        if o["score"] == "pseudo_label":
            first = nn.functional.cross_entropy(z, z.argmax(1))
        elif o["direction"] == "uniform":
            first = -torch.log(scaled.softmax(1)).sum(1).mean()
        else:  # KL(p || u) up to its constant, at the same scale of C
            first = classes * (scaled.softmax(1) * torch.log(scaled.softmax(1))).sum(1).mean()
        if o["reduction"] == "mean" and o["score"] == "uniform":
            first = first / classes
        grads = dict(zip(theta, torch.autograd.grad(first, list(theta.values()), retain_graph=True), strict=True))
        scores = {k: g.abs().sum() for k, g in grads.items()}
        if o["group"] == "module":
            owner = {k: k.rsplit(".", 1)[0] for k in theta}
            scores = {k: sum(scores[j] for j in theta if owner[j] == owner[k]) for k in theta}
        selected = {k for k, s in scores.items() if s <= o["threshold"]}
        for k in selected:
            s = (theta[k].detach() * grads[k]).abs()
            if rate[k] is None and o["first_sensitivity"] == "first":
                average[k] = s
            else:
                average[k] = o["alpha"] * s + (1 - o["alpha"]) * average[k]
            importance = ((s - average[k]).abs() + o["epsilon"]) / (average[k] + o["epsilon"])
            rate[k] = importance if o["granularity"] == "element" else importance.mean()
        limit = o["margin"] * (torch.tensor(float(classes)).log() if o["margin_unit"] == "log_classes" else 1.0)
        rows = entropy(z) < limit
        second = entropy(z)[rows].mean() if rows.any() else (z * 0).sum()
        if o["consistency"]:
            other = twin(view(x))
            cross = -(z.softmax(1) * torch.log(other.softmax(1))).sum(1).mean()
            second = second + o["consistency"] * (classes if o["consistency_unit"] == "classes" else 1) * cross
        twin.zero_grad()
        second.backward()
        rates = {k: r for k, r in rate.items() if r is not None and (o["freeze"] == "sticky" or k in selected)}
        if o["adam"] == "persistent" and o["granularity"] == "element":
            before = {k: p.detach().clone() for k, p in theta.items()}
            for k, p in theta.items():
                p.grad = p.grad if k in rates else None
            persistent.step()
            with torch.no_grad():
                for k, r in rates.items():
                    theta[k].copy_(before[k] + o["learning_rate"] * r * (theta[k] - before[k]))
        elif o["adam"] == "persistent":
            for group, (k, p) in zip(persistent.param_groups, theta.items(), strict=True):
                group["lr"] = o["learning_rate"] * float(rates.get(k, 0.0))
                p.grad = p.grad if k in rates else None
            persistent.step()
        else:
            for k, r in rates.items():
                before = theta[k].detach().clone()
                torch.optim.Adam([theta[k]], lr=1.0, weight_decay=o["weight_decay"]).step()
                with torch.no_grad():  # Adam's move at rate 1, times the tensor's own rate
                    theta[k].copy_(before + o["learning_rate"] * r * (theta[k] - before))
        log.append({"scores": scores, "selected": selected, "rates": rates})
    return answers, twin, log
