"""What the tests of methods that learn from chosen rows share: a net without batch statistics, and counted passes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from acclimate.adapted import Adapted
from methods.reference import by_batch, small_net

NORMS = (nn.BatchNorm2d, nn.GroupNorm)


def group_net(seed: int = 1, classes: int = 4) -> nn.Module:
    """`small_net` with group norms, of the same weights and biases, in the places of its batch norms."""
    net = small_net(seed, classes)
    for place, layer in enumerate(net):
        if isinstance(layer, nn.BatchNorm2d):
            group = nn.GroupNorm(2, layer.num_features).double()
            group.load_state_dict({"weight": layer.weight, "bias": layer.bias})
            net[place] = group
    return net


def batch_net(seed: int = 1, classes: int = 4) -> nn.Module:
    return small_net(seed, classes)


NETS = {"batch_norm": batch_net, "group_norm": group_net}


def oracle_net(kind: str) -> nn.Module:
    """The net as its answers are defined: batch norms by the statistics of the batch, all else as it is."""
    return by_batch(NETS[kind]())


def affine(net: nn.Module) -> list[nn.Parameter]:
    return [p for m in net.modules() if isinstance(m, NORMS) for p in m.parameters()]


def values(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in affine(net)]


def put(net: nn.Module, tensors: list[Tensor]) -> None:
    with torch.no_grad():
        for p, tensor in zip(affine(net), tensors, strict=True):
            p.copy_(tensor)


def nearest(adapted: Adapted, net: nn.Module) -> float:
    """The largest difference between the adapted weights and those of the oracle."""
    pairs = zip(adapted.state.weights.values(), affine(net), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def exported(adapted: Adapted) -> dict[str, Tensor]:
    adapted.settle()
    tensors, _ = adapted.state.table.export()
    return {name: tensor.clone() for name, tensor in tensors.items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(t, expected[name]) for name, t in found.items())


class Counted(nn.Module):
    """The same model; `rows` collects how many rows each forward had, and whether it built a graph."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.rows: list[tuple[int, bool]] = []

    def __deepcopy__(self, memo: dict[int, object]) -> Counted:
        twin = Counted(copy.deepcopy(self.net, memo))
        twin.rows = self.rows
        return twin

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        self.rows.append((len(x), logits.requires_grad))
        return logits


def uneven(batches: int = 6, size: int = 12, seed: int = 2) -> list[Tensor]:
    """Batches of images in [0, 1] of uneven colour and contrast, so that answers differ where rows are independent."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    contrast = [0.1 + 0.9 * rand(size, 1, 1, 1) for _ in range(batches)]
    return [rand(size, 3, 1, 1) * (1 - c) + rand(size, 3, 8, 8) * c for c in contrast]
