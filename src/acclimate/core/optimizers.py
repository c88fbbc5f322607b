"""An optimiser whose state is seen as named tensors and numbers, whatever its class keeps."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["OptimizerFactory", "TrackedOptimizer", "build_optimizer", "moments"]


class TrackedOptimizer:
    """Reads, restores and resets any `torch.optim`-style optimiser.

    Tensors are named `group/0/lr` (a number that the optimiser keeps as a tensor) or `state/WEIGHT/KEY`. Entries that
    the optimiser adds to its groups or state later are taken back with the rest.
    """

    def __init__(self, optimizer: Optimizer, weights: Mapping[str, nn.Parameter]) -> None:
        self.optimizer = optimizer
        self._weights = dict(weights)
        self._spares_gradients = type(optimizer).__module__.startswith("torch.")  # others may write on them
        self._initial = [
            {key: _copy(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups
        ]
        self._initial_state = {
            name: {key: _copy(value) for key, value in optimizer.state[weight].items()}
            for name, weight in weights.items()
            if weight in optimizer.state
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedOptimizer:
        """All attributes of the optimiser, of which torch's own pickling keeps only three."""
        twin, optimizer = object.__new__(type(self)), object.__new__(type(self.optimizer))
        memo[id(self)], memo[id(self.optimizer)] = twin, optimizer
        vars(optimizer).update(copy.deepcopy(vars(self.optimizer), memo))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One update with these gradients; the `.grad` slots are empty again afterwards."""
        for name, weight in self._weights.items():
            gradient = gradients.get(name)
            weight.grad = gradient if gradient is None or self._spares_gradients else gradient.clone()
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
            kept.setdefault(f"{area}/{owner}", {})[key] = tensor
        for number, (group, numbers) in enumerate(zip(self.optimizer.param_groups, scalars["groups"], strict=True)):
            held = kept.get(f"group/{number}", {})
            self._drop_late(number, held.keys() | numbers.keys())
            group.update({key: tuple(value) if isinstance(value, list) else value for key, value in numbers.items()})
            self._put(group, held, group["params"][0].device)
        for name, weight in self._weights.items():
            held = kept.get(f"state/{name}", {})
            numbers = scalars["states"].get(name, {})
            if not held and not numbers:
                self.optimizer.state.pop(weight, None)
                continue
            state = self.optimizer.state[weight]
            for key in state.keys() - held.keys() - numbers.keys():
                del state[key]
            state.update(numbers)
            self._put(state, held, weight.device)

    def _drop_late(self, number: int, kept: Iterable[str] = ()) -> None:
        """Remove what the optimiser has added to a group since it was built."""
        group = self.optimizer.param_groups[number]
        for key in group.keys() - self._initial[number].keys() - set(kept) - {"params"}:
            del group[key]

    @staticmethod
    def _put(entries: dict[str, Any], tensors: Mapping[str, Tensor], device: torch.device) -> None:
        for key, tensor in tensors.items():
            if isinstance(entries.get(key), Tensor):
                entries[key].copy_(tensor)
            else:  # scalars are step counts, which torch keeps on the CPU
                entries[key] = tensor.clone() if tensor.ndim == 0 else tensor.clone().to(device)

    def misfits(self, tensors: Mapping[str, Tensor], scalars: Any) -> list[str]:
        """What of a saved state does not belong here, in words. Tried out by one step.

        Leaves the optimiser and its weights as they were.
        """
        if not isinstance(scalars, Mapping) or not isinstance(scalars.get("states"), Mapping):
            return ["its numbers are garbled"]
        wrong = list[str]()
        before = [_kinds(_numbers(group)) for group in self.optimizer.param_groups]
        template, after = self._template()
        found = scalars.get("groups")
        if not isinstance(found, list) or len(found) != len(before) or not all(map(_between, before, found, after)):
            wrong.append("its settings are garbled")
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
    def _template(self) -> tuple[dict[str, tuple[torch.Size, torch.dtype]], list[Any]]:
        """Shapes and types of what it keeps after a step, and the kinds of its groups' numbers."""
        before, numbers = {path: tensor.clone() for path, tensor in self.tensors()}, self.scalars()
        weights = {name: weight.clone() for name, weight in self._weights.items()}
        self.step({name: torch.ones_like(weight) for name, weight in self._weights.items()})
        template = {path: (tensor.shape, tensor.dtype) for path, tensor in self.tensors()}
        kinds = [_kinds(_numbers(group)) for group in self.optimizer.param_groups]
        self.restore(before, numbers)
        for name, weight in self._weights.items():
            weight.copy_(weights[name])
        return template, kinds

    def reset(self) -> None:
        """As freshly built."""
        self.optimizer.state.clear()
        for name, values in self._initial_state.items():
            self.optimizer.state[self._weights[name]] = {key: _copy(value) for key, value in values.items()}
        for number, (group, initial) in enumerate(zip(self.optimizer.param_groups, self._initial, strict=True)):
            self._drop_late(number)
            group.update({key: _copy(value) for key, value in initial.items()})


def moments(factory: OptimizerFactory, dimensions: int = 1) -> float:
    """How many copies of the weights an optimiser keeps: found by letting it take one step on a weight [3, ...].

    One that factors its moments, as Adafactor does, keeps less of weights with more dimensions: with four this is
    what it keeps of convolutions of 3 x 3.
    """
    weight = nn.Parameter(torch.zeros((3,) * dimensions))
    tracked = TrackedOptimizer(build_optimizer(factory, [weight], 1e-3), {"weight": weight})
    tracked.step({"weight": torch.ones_like(weight)})
    kept = sum(t.numel() for path, t in tracked.tensors() if path.startswith("state/") and t.ndim)
    return kept / weight.numel()


def _numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    return _plain({key: value for key, value in group.items() if key != "params"})


def _kinds(numbers: Any) -> Any:
    if not isinstance(numbers, Mapping):
        return None
    return {key: float if type(value) is int else type(value) for key, value in numbers.items()}


def _between(before: Mapping[str, Any], found: Any, after: Mapping[str, Any]) -> bool:
    """Whether these settings are of the right kinds: those from the beginning, and any that a step adds."""
    kinds = _kinds(found)
    return kinds is not None and before.items() <= kinds.items() <= (after.items() | before.items())


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, (tuple, list)) else value
        for key, value in values.items()
        if value is None or isinstance(value, (float, int, bool, str, tuple, list))
    }


OptimizerFactory = str | Callable[..., Optimizer]
"""A name that `build_optimizer` knows (any case) or a factory called as `factory(parameters, lr=...)`."""


_CONVENTIONS: dict[str, dict[str, Any]] = {"sgd": {"momentum": 0.9, "nesterov": True}}
"""What the field means by a bare name where torch's default means something else."""

_ELSEWHERE = {"lars": "LARS", "prodigy": "Prodigy"}
"""Classes of the package pytorch-optimizer."""


def build_optimizer(
    factory: OptimizerFactory, parameters: Iterable[nn.Parameter], learning_rate: float, **options: Any
) -> Optimizer:
    """An optimiser over `parameters`. ValueError for an unknown name or one that needs a closure.

    Names: every class of `torch.optim` ("sgd" with Nesterov momentum 0.9), and "lars" and "prodigy" of the package
    pytorch-optimizer (`pip install 'acclimate[optimizers]'`). What to know before comparing them:

    - `lars` moves each weight by 1e-3 of its own size, times the learning rate: it wants rates around 1, and at
      those of Adam it does not move. Vectors, such as those of norms, are left to plain SGD.
    - `prodigy` finds its own rate: leave `learning_rate` at 1. It starts almost frozen, at 1e-6, and may stay so;
      `functools.partial(pytorch_optimizer.Prodigy, d_coef=...)` makes it bolder. It reads one number a step
      on the host and keeps four copies of the weights.
    - `adafactor` moves by the learning rate times the size of the weights: torch's default of 0.01 ruins a
      model within a stream; try 1e-5 to 1e-3.
    """
    if isinstance(factory, str):
        name = factory.lower()
        options = {**_CONVENTIONS.get(name, {}), **options}
        factory = _elsewhere(_ELSEWHERE[name]) if name in _ELSEWHERE else _from_torch(factory)
    return factory(list(parameters), lr=learning_rate, **options)


def _from_torch(name: str) -> Callable[..., Optimizer]:
    classes = {key.lower(): cls for key, cls in vars(torch.optim).items() if isinstance(cls, type)}
    if name.lower() not in classes or name.lower() in ("optimizer", "lbfgs", "sparseadam"):
        raise ValueError(
            f"there is no optimiser {name!r} in torch.optim that steps without a closure. "
            f"Pass its class name (adam, sgd, adamw, ...), {' or '.join(_ELSEWHERE)}, or a factory such as "
            "functools.partial(torch.optim.SGD, momentum=0.9)."
        )
    return classes[name.lower()]


def _elsewhere(name: str) -> Callable[..., Optimizer]:
    try:
        return getattr(importlib.import_module("pytorch_optimizer"), name)
    except ImportError as error:
        raise ValueError(
            f"the optimiser {name} is in the package pytorch-optimizer, which is not installed. Install it with "
            "pip install 'acclimate[optimizers]', or pass a factory of your own."
        ) from error
