"""An optimiser whose state is seen as named tensors and numbers, whatever its class keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["OptimizerFactory", "TrackedOptimizer", "build_optimizer"]


class TrackedOptimizer:
    """Reads, restores and resets any `torch.optim`-style optimiser.

    Tensors are named `group/0/lr` (a number that the optimiser keeps as a tensor) or `state/WEIGHT/KEY`.
    """

    def __init__(self, optimizer: Optimizer, weights: Mapping[str, nn.Parameter]) -> None:
        self.optimizer = optimizer
        self._weights = dict(weights)
        self._initial = [
            {key: _copy(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups
        ]

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One update with these gradients; the `.grad` slots are empty again afterwards."""
        for name, weight in self._weights.items():
            weight.grad = gradients.get(name)
        try:
            self.optimizer.step()
        finally:
            for weight in self._weights.values():
                weight.grad = None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for number, group in enumerate(self.optimizer.param_groups):
            for key, value in group.items():
                if isinstance(value, Tensor):
                    yield f"group/{number}/{key}", value
        for name, weight in self._weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                if isinstance(value, Tensor):
                    yield f"state/{name}/{key}", value

    def scalars(self) -> dict[str, Any]:
        """Numbers that are no tensors, as JSON values; callables are configuration, not state."""
        groups = [_plain({k: v for k, v in g.items() if k != "params"}) for g in self.optimizer.param_groups]
        states = {name: _plain(self.optimizer.state.get(weight, {})) for name, weight in self._weights.items()}
        return {"groups": groups, "states": {name: values for name, values in states.items() if values}}

    def restore(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Back to what `tensors` and `scalars` gave; entries created since are removed."""
        kept: dict[str, dict[str, Tensor]] = {}
        for path, tensor in tensors.items():
            area, owner, key = path.split("/", 2)
            if area == "state":
                kept.setdefault(owner, {})[key] = tensor
            else:
                self.optimizer.param_groups[int(owner)][key].copy_(tensor)
        for group, numbers in zip(self.optimizer.param_groups, scalars["groups"], strict=True):
            for key, value in numbers.items():
                group[key] = tuple(value) if isinstance(value, list) else value
        for name, weight in self._weights.items():
            numbers = scalars["states"].get(name, {})
            if name not in kept and not numbers:
                self.optimizer.state.pop(weight, None)
                continue
            state = self.optimizer.state[weight]
            for key in state.keys() - kept.get(name, {}).keys() - numbers.keys():
                del state[key]
            state.update(numbers)
            for key, tensor in kept.get(name, {}).items():
                if isinstance(state.get(key), Tensor):
                    state[key].copy_(tensor)
                else:  # scalars are step counts, which torch keeps on the CPU
                    state[key] = tensor.clone() if tensor.ndim == 0 else tensor.clone().to(weight.device)

    def fits(self, path: str) -> bool:
        """Whether a saved tensor of this name can belong here."""
        area, _, rest = path.partition("/")
        owner = rest.partition("/")[0]
        groups = len(self.optimizer.param_groups)
        return owner in self._weights if area == "state" else owner.isdigit() and int(owner) < groups

    def reset(self) -> None:
        """As freshly built."""
        self.optimizer.state.clear()
        for group, initial in zip(self.optimizer.param_groups, self._initial, strict=True):
            group.update({key: _copy(value) for key, value in initial.items()})


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, (tuple, list)) else value
        for key, value in values.items()
        if value is None or isinstance(value, (float, int, bool, str, tuple, list))
    }


OptimizerFactory = str | Callable[..., Optimizer]
"""A class name in `torch.optim` (any case) or a factory called as `factory(parameters, lr=...)`."""


_CONVENTIONS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9, "nesterov": True}}
"""What the field means by a bare name where torch's default means something else."""


def build_optimizer(
    factory: OptimizerFactory, parameters: Iterable[nn.Parameter], learning_rate: float, **options: Any
) -> Optimizer:
    """An optimiser over `parameters`. ValueError for an unknown name or one that needs a closure."""
    if isinstance(factory, str):
        classes = {name.lower(): cls for name, cls in vars(torch.optim).items() if isinstance(cls, type)}
        if factory.lower() not in classes or factory.lower() in ("optimizer", "lbfgs", "sparseadam"):
            raise ValueError(
                f"there is no optimiser {factory!r} in torch.optim that steps without a closure. "
                "Pass its class name (adam, sgd, adamw, ...) or a factory such as "
                "functools.partial(torch.optim.SGD, momentum=0.9)."
            )
        options = {**_CONVENTIONS.get(factory.lower(), {}), **options}
        factory = classes[factory.lower()]
    return factory(list(parameters), lr=learning_rate, **options)
