"""Experts in normalisation layers: several scales and shifts, among which each sample is routed to its own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from acclimate.anatomy import norm_layers
from acclimate.core.normalization import HOOKS, is_stock, replace_module, scaled
from acclimate.core.state import State

__all__ = ["ExpertNorm", "Experts", "Load", "Routing", "expert_norms", "grow_experts", "load", "recorded"]

_PECULIAR = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, AssertionError)


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How samples come to experts: `active` of `experts` each.

    `normalised`: the coefficients of a sample add up to 1, else each is 1; `router_gradient`: the router learns from
    them; `per_sample`: else one decision for all rows of a forward, by their mean.
    """

    experts: int = 9
    active: int = 1
    normalised: bool = True
    router_gradient: bool = True
    per_sample: bool = True

    def choose(self, probabilities: Tensor, penalty: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Coefficients, and 1 where an expert is chosen, else 0; of `[B, N]` probabilities, two of `[B, N]`.

        The best of `b = p - penalty` are chosen, with coefficients `b_n / sg(sum_chosen b)` or `b_n / sg(b_n)`, sg for
        what counts as a constant: of one chosen expert it is 1, with the gradient of `log b`.
        """
        biased = probabilities if penalty is None else probabilities - penalty
        best = biased.detach().topk(self.active).indices
        mask = torch.zeros_like(biased, requires_grad=False).scatter_(1, best, 1.0)
        taken = biased * mask
        value = taken.detach()
        share = value.sum(1, keepdim=True) if self.normalised else value + (1 - mask)
        return (taken if self.router_gradient else value) / share, mask


class Experts(nn.Module):
    """What one normalisation layer learns: `scale` G and `shift` B, `[N, d]`, and a router, `p = softmax(R a + r)`."""

    def __init__(self, norm: ExpertNorm, routing: Routing, randomness: float, generator: torch.Generator) -> None:
        super().__init__()
        count, width = routing.experts, len(norm.weight)
        noise = torch.randn(count, width, generator=generator)
        self.router = nn.Parameter(noise * math.sqrt(2 / (count + width)))
        self.router_bias = nn.Parameter(torch.zeros(count))
        self.scale, self.shift = (
            nn.Parameter(_beside(shared, count, randomness, generator)) for shared in (norm.weight, norm.bias)
        )

    def probabilities(self, pooled: Tensor) -> Tensor:
        """`[B, d] -> [B, N]`, in at least float32."""
        wide = torch.promote_types(self.router.dtype, torch.float32)
        return F.linear(pooled.to(self.router.dtype), self.router, self.router_bias).softmax(1, dtype=wide)


def _beside(shared: Tensor, count: int, randomness: float, generator: torch.Generator) -> Tensor:
    if not randomness:
        return torch.zeros(count, len(shared))
    rows = torch.randn(count, len(shared), generator=generator)
    return F.normalize(rows, dim=1) * (randomness * shared.detach().float().norm().cpu())


class ExpertNorm(nn.Module):
    """In the place of a norm with weight and bias: `y = xhat (weight + c G) + (bias + c B)`, with c of each sample.

    The first axis counts samples. `base` is the norm without weight and bias, with the statistics that it has or is
    given; a sample is routed by the mean `a` of its input over tokens or positions. Weight and bias are frozen.
    Within `recorded`, forwards with a graph leave what they routed in `routes`.
    """

    experts: Experts

    def __init__(self, norm: nn.Module, routing: Routing) -> None:
        super().__init__()
        idle = nn.Identity()
        for hooks in HOOKS:  # of users, who expect what the whole layer gives
            setattr(self, hooks, getattr(norm, hooks))
            setattr(norm, hooks, getattr(idle, hooks))
        self.register_forward_hook(_seen)
        self.weight: nn.Parameter = norm.weight  # pyright: ignore[reportAttributeAccessIssue]
        self.bias: nn.Parameter = norm.bias  # pyright: ignore[reportAttributeAccessIssue]
        for key in ("weight", "bias"):
            norm.register_parameter(key, None)
        self.base = norm
        self.eps = norm.eps
        self.routing = routing
        self.last = isinstance(norm, nn.LayerNorm)
        self.penalty: Tensor | None = None
        self.routes: list[tuple[Tensor, Tensor]] | None = None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        inner = tuple(range(1, x.ndim - 1)) if self.last else tuple(range(2, x.ndim))
        pooled = x.mean(inner) if inner else x
        if not self.routing.per_sample:
            pooled = pooled.mean(0, keepdim=True)
        probabilities = self.experts.probabilities(pooled)
        coefficients, mask = self.routing.choose(probabilities, self.penalty)
        if self.routes is not None and torch.is_grad_enabled():
            self.routes.append((probabilities, mask))
        coefficients = coefficients.to(self.experts.scale.dtype)
        scale = coefficients @ self.experts.scale + self.weight
        shift = coefficients @ self.experts.shift + self.bias
        y = self.base(x)
        ones = (1,) * len(inner)
        shape = (len(scale), *ones, scale.shape[1]) if self.last else (*scale.shape, *ones)
        return scaled(y, scale.to(y.dtype).view(shape), shift.to(y.dtype).view(shape))


def _seen(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """A hook, because torch's transformer layers go round norms that nobody watches, by their weight and bias."""


def _computes_as_torch(norm: nn.Module) -> bool:
    """Whether without its weight and bias it gives what torch's own norm does, on a small input."""
    if isinstance(norm, _BatchNorm):
        return is_stock(norm)
    affine = {key: norm.get_parameter(key) for key in ("weight", "bias")}
    count = len(affine["weight"])
    shape = (2, 3, count) if isinstance(norm, nn.LayerNorm) else (2, count, 2, 2)
    x = torch.arange(math.prod(shape), dtype=torch.float32).sin().view(shape).to(affine["weight"])
    try:
        for key in affine:
            norm.register_parameter(key, None)
        with torch.no_grad():
            found = norm.forward(x)
            if isinstance(norm, nn.LayerNorm):
                expected = F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
            else:
                assert isinstance(norm, nn.GroupNorm)
                expected = F.group_norm(x, norm.num_groups, eps=norm.eps)
            return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-2, atol=1e-2)
    except _PECULIAR:
        return False
    finally:
        for key, parameter in affine.items():
            norm.register_parameter(key, parameter)


def _able(norm: nn.Module) -> bool:
    affine = [getattr(norm, key, None) for key in ("weight", "bias")]
    vectors = all(isinstance(each, nn.Parameter) and each.ndim == 1 for each in affine)
    return vectors and isinstance(norm, (_BatchNorm, nn.GroupNorm, nn.LayerNorm)) and _computes_as_torch(norm)


def grow_experts(state: State, routing: Routing, freeze_first: int | None, randomness: float) -> list[str]:
    """Grow experts in the batch, group and layer norms of the model; returns their names. ValueError if it has none.

    Only norms with weight and bias, vectors, get experts, and of subclasses those that compute the same. Others
    stay as they are, and so do the first `freeze_first` of them, by default 3 of 10 where there are more than 40 and
    else one; never the last.
    """
    norms = {name: norm for name, norm in norm_layers(state.model).items() if name and _able(norm)}
    state.require(bool(norms), "experts in batch, group or layer norms with weight and bias")
    count = len(norms)
    first = (round(0.3 * count) if count > 40 else 1) if freeze_first is None else freeze_first
    generator = torch.Generator().manual_seed(state.table.seed)
    chosen = list(norms.items())[min(first, count - 1) :]
    for name, norm in chosen:
        layer = ExpertNorm(norm, routing)
        replace_module(state.model, norm, layer)
        state.attach(name, "experts", Experts(layer, routing, randomness, generator))
    return [name for name, _ in chosen]


def expert_norms(model: nn.Module) -> dict[str, ExpertNorm]:
    """All of them by name, in definition order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ExpertNorm)}


@contextlib.contextmanager
def recorded(layers: Mapping[str, ExpertNorm]) -> Generator[None]:
    """Within this block forwards with a graph leave what they routed in their layers."""
    for layer in layers.values():
        layer.routes = []
    try:
        yield
    finally:
        for layer in layers.values():
            layer.routes = None


@dataclass(frozen=True, slots=True)
class Load:
    """What experts had to do: of each of L layers by `names` the `shares` of rows and the `counts`, `[L, N]`.

    `balance` is `sum_l N sum_n f_n P_n` with shares f, which are constants, and mean probabilities P; one that is L
    when all experts of all layers have the same to do.
    """

    names: tuple[str, ...]
    shares: Tensor
    counts: Tensor
    balance: Tensor


def load(layers: Mapping[str, ExpertNorm]) -> Load:
    """Of all forwards in the `recorded` block so far, those of a layer that ran more than once together."""
    ran = {name: tuple(zip(*layer.routes, strict=True)) for name, layer in layers.items() if layer.routes}
    probabilities, masks = (
        torch.stack([torch.cat(routes[part]).mean(0) for routes in ran.values()]) for part in range(2)
    )
    shares = masks / masks.sum(1, keepdim=True)
    rows = masks.new_tensor([sum(map(len, routes[1])) for routes in ran.values()])
    balance = masks.shape[1] * (shares * probabilities).sum()
    return Load(tuple(ran), shares, masks * rows[:, None], balance)
