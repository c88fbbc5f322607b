"""An optimiser whose state is seen as named tensors and numbers, whatever its class keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["OptimizerFactory", "TrackedOptimizer", "build_optimizer", "moments"]


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
        self._initial_state = {
            name: {key: _copy(value) for key, value in optimizer.state[weight].items()}
            for name, weight in weights.items()
            if weight in optimizer.state
        }

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
        groups = [_numbers(group) for group in self.optimizer.param_groups]
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

    def misfits(self, tensors: Mapping[str, Tensor], scalars: Any) -> list[str]:
        """What of a saved state does not belong here, in words. Tried out by one step without gradients.

        Leaves the optimiser and its weights as they were.
        """
        if not isinstance(scalars, Mapping) or not isinstance(scalars.get("states"), Mapping):
            return ["its numbers are garbled"]
        groups, wrong = [_numbers(group) for group in self.optimizer.param_groups], list[str]()
        found = scalars.get("groups")
        if not isinstance(found, list) or [_kinds(g) for g in found] != [_kinds(g) for g in groups]:
            wrong.append("its settings are garbled")
        template = self._template()
        held: dict[str, set[str]] = {}
        for path, tensor in tensors.items():
            area, _, rest = path.partition("/")
            owner, _, key = rest.partition("/")
            expected = template.get(path)
            if expected is None or expected != (tensor.shape, tensor.dtype):
                wrong.append(f"{path} is {list(tensor.shape)} {tensor.dtype}, expected {expected or 'nothing'}")
            elif area == "state":
                held.setdefault(owner, set()).add(key)
        for owner, keys in held.items():
            prefix = f"state/{owner}/"
            missing = {p.removeprefix(prefix) for p in template if p.startswith(prefix)} - keys
            wrong += [f"{prefix}{key} is missing" for key in sorted(missing)]
        wrong += [f"the weight {name} is not known" for name in scalars["states"] if name not in self._weights]
        return wrong

    @torch.no_grad()
    def _template(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        before, numbers = {path: tensor.clone() for path, tensor in self.tensors()}, self.scalars()
        weights = {name: weight.clone() for name, weight in self._weights.items()}
        self.step({name: torch.zeros_like(weight) for name, weight in self._weights.items()})
        template = {path: (tensor.shape, tensor.dtype) for path, tensor in self.tensors()}
        self.restore(before, numbers)
        for name, weight in self._weights.items():
            weight.copy_(weights[name])
        return template

    def reset(self) -> None:
        """As freshly built."""
        self.optimizer.state.clear()
        for name, values in self._initial_state.items():
            self.optimizer.state[self._weights[name]] = {key: _copy(value) for key, value in values.items()}
        for group, initial in zip(self.optimizer.param_groups, self._initial, strict=True):
            group.update({key: _copy(value) for key, value in initial.items()})


def moments(factory: OptimizerFactory) -> int:
    """How many copies of the weights an optimiser keeps: found by letting it take one step on three numbers."""
    weight = nn.Parameter(torch.zeros(3))
    tracked = TrackedOptimizer(build_optimizer(factory, [weight], 1e-3), {"weight": weight})
    tracked.step({"weight": torch.zeros(3)})
    return sum(tensor.numel() == 3 for _, tensor in tracked.tensors())


def _numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    return _plain({key: value for key, value in group.items() if key != "params"})


def _kinds(numbers: Any) -> Any:
    if not isinstance(numbers, Mapping):
        return None
    return {key: float if type(value) is int else type(value) for key, value in numbers.items()}


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
