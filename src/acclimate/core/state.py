"""What a method works with: the adapting model, its declared state, and the passes it makes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from acclimate.anatomy import (
    Selector,
    affine_norms,
    batch_norms,
    blocks,
    class_count,
    convolutions_and_norms,
    head,
    norm_layers,
    token_blocks,
)
from acclimate.core import foreach
from acclimate.core.buffers import Buffers
from acclimate.core.inputs import Call
from acclimate.core.layout import keep_channels_last, to_channels_last
from acclimate.core.method import list_methods
from acclimate.core.normalization import Normalization, NormalizationLayer, Phase, convert, owned, phase
from acclimate.core.optimizers import OptimizerFactory, build_optimizer
from acclimate.core.output import Selector as OutputSelector
from acclimate.core.output import find_logits
from acclimate.core.table import Kind, Merge, Table

__all__ = ["State"]


class State:
    """Handed to `Method.setup` once and to `Method.step` for each batch.

    `model` is a structural clone of the source; `weights` are the tensors it adapts, by dotted name; `table`
    holds every mutable tensor; `batches` counts the batches taken so far; `extremes` are the lowest and highest
    value of the current input; `by_batch` tells whether answers to a row depend on the other rows of its forward.
    `order` has names of weights as the forward first uses them, where a memory policy has asked for it.
    `rehearsing` is true in a step that is measured for its memory and undone: it then takes the most that a step can.
    A step that answers from after its update puts logits from before it into `fallback`, for the case that the
    update is refused.
    """

    def __init__(self, model: nn.Module, seed: int = 0, output: OutputSelector = None) -> None:
        self.model = model
        self.table = Table(seed)
        self.table.counters["batches"] = 0
        self.weights: dict[str, nn.Parameter] = {}
        self.twins: dict[str, dict[str, Tensor]] = {}
        self.layers: list[NormalizationLayer] = []
        self.normalization: Normalization | None = None
        self.by_batch = False
        self.channels_last = False
        self.extremes = (0.0, 0.0)
        self.rehearsing = False
        self.order: tuple[str, ...] = ()
        self.buffers: Buffers
        self._selector = output
        self._foldable = True
        self._classes: int | None = None
        self.begin(Call((), {}, 0))

    def normalise(self, normalization: Normalization) -> None:
        """Give the model's batch norms their statistics this way; after `setup`, which looks at stock modules."""
        norms = batch_norms(self.model)
        own = any(layer.running_mean is None for layer in norms.values())
        self.normalization = normalization
        self.by_batch = bool(norms) and (normalization.by_batch or own)
        self.layers = convert(self.model, normalization, self.table)
        normalization.connect(self.layers, self.table)
        self._foldable = all(layer.running_mean is not None for layer in batch_norms(self.model).values())

    def resume(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Take over an exported state."""
        self.buffers.declare(self.table, [name.removeprefix("buffers.") for name in tensors if name[:8] == "buffers."])
        self.table.adopt(tensors, scalars)

    # -- setup -----------------------------------------------------------------------------------------

    def adapt(self, select: Selector, what: str) -> dict[str, nn.Parameter]:
        """Give the selected parameters storage of their own and let them learn.

        `what` names them in the error raised when the model has none.
        """
        chosen = select(self.model)
        self.require(bool(chosen), what)
        for name, parameter in chosen.items():
            source = parameter.data
            parameter.data = source.clone()
            parameter.requires_grad_(True)
            self.table.declare(f"weights.{name}", parameter, initial=source, kind="weights")
        self.weights |= chosen
        return chosen

    def attach(self, parent: str, name: str, module: nn.Module) -> None:
        """Grow a module onto the model, as a child of the module `parent`: its parameters learn like adapted ones.

        What they are reset to stands in `state["grown.<name of the weight>"]`, for `Method.ready` to fill with what it
        has trained. The caller sees to it that the module runs.
        """
        like = next(p for p in self.model.parameters() if p.is_floating_point())
        self.model.get_submodule(parent).add_module(name, module.to(like.device, like.dtype).eval())
        for weight, parameter in module.named_parameters(prefix=f"{parent}.{name}"):
            initial = parameter.detach().clone()
            self.declare(f"grown.{weight}", initial, initial=initial, kind="weights")
            self.table.declare(f"weights.{weight}", parameter, initial=initial, kind="weights")
            self.weights[weight] = parameter

    def twin(self, name: str) -> dict[str, Tensor]:
        """Keep a second set of the adapted weights, from the source's values, which `using(name)` puts to work."""
        self.twins[name] = {
            weight: self.declare(f"{name}.{weight}", source.clone(), initial=source, kind="weights")
            for weight, source in zip(self.weights, self.sources(), strict=True)
        }
        return self.twins[name]

    @contextlib.contextmanager
    def using(self, name: str) -> Generator[None]:
        """Within this block the model runs on the weights of a twin, or on the source's own with "source".

        Gradients are taken, and the optimiser steps, on these. A graph built in such a block is used in one of the same
        name, be it entered again. The source's weights are for forwards only.
        """
        tensors = self.sources() if name == "source" else list(self.twins[name].values())
        own = [weight.data for weight in self.weights.values()]
        for weight, tensor in zip(self.weights.values(), tensors, strict=True):
            weight.data = tensor
        try:
            with owned(self.layers, name):
                yield
        finally:
            for weight, tensor in zip(self.weights.values(), own, strict=True):
                weight.data = tensor

    def classes(self, given: int | None = None) -> int:
        """How many classes there are: as given, or else the outputs of the model's last linear or convolution layer.

        Every forward is held to it.
        """
        self._classes = given or class_count(self.model)
        return self._classes

    def sources(self) -> list[Tensor]:
        """The source's values of the adapted weights, in the same order."""
        slots = (self.table.slots[f"weights.{name}"].initial for name in self.weights)
        return [initial for initial in slots if isinstance(initial, Tensor)]

    def require(self, found: bool, what: str) -> None:
        """ValueError that names what the model lacks and the methods that do without."""
        if not found:
            raise ValueError(_nothing_to_adapt(self.model, what))

    def declare(
        self,
        name: str,
        tensor: Tensor,
        *,
        initial: Tensor | float,
        kind: Kind = "statistics",
        merge: Merge = "mean",
        learned: bool = True,
        host: bool = False,
    ) -> Tensor:
        """Keep a tensor over batches; afterwards it is `state[name]` and changed in place only.

        What is not `learned` goes on through restarts, and through steps that learn nothing. What is on the `host`
        stays on the CPU wherever the model goes.
        """
        return self.table.declare(
            f"method.{name}", tensor, initial=initial, kind=kind, merge=merge, learned=learned, host=host
        )

    def expect(
        self, name: str, *, length: int, kind: Kind = "memory", merge: Merge = "first", host: bool = False
    ) -> None:
        """Announce a tensor `[length, ...]` of a shape that only the stream tells; `fulfil` brings it."""
        self.table.expect(f"method.{name}", length=length, kind=kind, merge=merge, host=host)

    def fulfil(self, name: str, tensor: Tensor) -> Tensor:
        """Bring an announced tensor; from then on it is `state[name]` and changed in place only."""
        return self.table.fulfil(f"method.{name}", tensor)

    def optimizer(self, factory: OptimizerFactory, learning_rate: float, **options: Any) -> Optimizer:
        """Build the optimiser of all adapted weights; `descend` uses it."""
        optimizer = build_optimizer(factory, self.weights.values(), learning_rate, **options)
        self.table.declare_optimizer("optimizer", optimizer, self.weights)
        return optimizer

    def generator(self, name: str) -> torch.Generator:
        """A private random generator."""
        return self.table.generator(name)

    # -- step ------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Tensor:
        return self.table.slots[f"method.{name}"].tensor

    def __contains__(self, name: str) -> bool:
        return f"method.{name}" in self.table.slots

    @property
    def batches(self) -> int:
        return self.table.counters["batches"]

    @property
    def alone(self) -> bool:
        """Whether the input is the only tensor of the call with a row for each sample."""
        return self._call.alone

    def begin(self, call: Call, *, frozen: bool = False) -> None:
        """Open the books for one step on this call; a frozen one answers without changing any statistics."""
        self._call = call
        self.frozen = frozen
        self.answer: Any = None
        self.fallback: Tensor | None = None
        self.forwards = 0.0
        self.backwards = 0
        self.restarted = False
        self.notes: dict[str, Tensor | float] = {}
        self.details: dict[str, tuple[tuple[str, ...], Tensor]] = {}
        self.demands: list[tuple[str, Tensor]] = []
        self.wishes: list[tuple[str, Tensor]] = []

    def end(self) -> None:
        """Close the books: nothing of the batch is kept alive."""
        self.answer = self.fallback = None
        self._call = Call((), {}, 0)
        self.demands, self.wishes = [], []

    def forward(
        self, x: Tensor, *, answering: bool = True, learning: bool = False, groups: int = 1, rows: Tensor | None = None
    ) -> Tensor:
        """Logits of `x` in the call's place. Exactly one forward of a step answers; others are views.

        `learning`: a forward on samples kept earlier, which statistics may follow if they follow what is learned.
        `groups`: `x` is that many batches one after another, each normalised by its own statistics, as if they had
        come one by one. `rows`: indices of the batch's rows that those of `x` stand for, where they are others.
        """
        frozen = self.frozen and answering
        if answering and self.normalization is not None and self.normalization.observes and not frozen:
            with torch.no_grad():
                self.normalization.observe(self, x)
        what: Phase = "learn" if learning else "answer" if answering and not frozen else "view"
        if groups > 1 and not self._foldable:
            places = [None] * groups if rows is None else rows.chunk(groups)
            parts = [self.run(part, what, rows=each) for part, each in zip(x.chunk(groups), places, strict=True)]
            logits = torch.cat([find_logits(part, self._selector) for part in parts])
            output = parts[-1]
        else:
            output = self.run(x, what, groups=groups, rows=rows)
            logits = find_logits(output, self._selector)
        if self.channels_last:
            keep_channels_last(logits)
        if len(logits) != len(x):
            raise ValueError(
                f"the model gave {len(logits)} rows of logits for an input of shape {list(x.shape)}, expected "
                f"{len(x)}. Pass a batch [N, ...], or say with output= where the logits [N, C, ...] are."
            )
        if self._classes is not None and logits.shape[1] != self._classes:
            raise ValueError(
                f"the logits are {list(logits.shape)}, so {logits.shape[1]} classes, but this method counts "
                f"{self._classes}. Say how many with classes={logits.shape[1]} in its settings."
            )
        if self.weights and logits.shape[1] == 1:
            raise ValueError(
                f"the logits are {list(logits.shape)}: one class, of which every answer is certain. Give both, for "
                "instance torch.cat([-z, z], 1) / 2, with output= or in the model."
            )
        if answering:
            self.answer = output
        return logits

    def run(self, x: Tensor, what: Phase, *, groups: int = 1, rows: Tensor | None = None) -> Any:
        """The model's whole output for `x` in the call's place. Only an answer may change stored statistics."""
        x = to_channels_last(x) if self.channels_last else x
        call = self._call.with_input(x) if rows is None else self._call.beside(x, rows)
        if torch.is_autocast_enabled(x.device.type):
            torch.clear_autocast_cache()  # it would keep answering with casts of earlier weights
        self.forwards += len(x) / len(self._call.x)
        with phase(self.layers, what, groups):
            if what != "answer":
                with self.buffers.unchanged():
                    return self.model(*call.args, **call.kwargs)
            try:
                return self.model(*call.args, **call.kwargs)
            finally:
                self.buffers.keep(self.table)

    def gradients(
        self, loss: Tensor, *, of: Iterable[str] | None = None, retain_graph: bool = False
    ) -> dict[str, Tensor]:
        """Gradients of the loss by weight name, of all weights or of some; zeros where it does not reach.

        One backward. A loss that is not finite makes the whole step be refused.
        """
        names = list(self.weights if of is None else of)
        if not loss.requires_grad:
            raise ValueError(
                "the loss does not depend on the adapted weights: the model answers without a graph. "
                "Take torch.no_grad or .detach() out of its forward."
            )
        self.backwards += 1
        learning = [name for name in names if self.weights[name].requires_grad]
        weights = [self.weights[name] for name in learning]
        found = torch.autograd.grad(loss, weights, retain_graph=retain_graph, allow_unused=True, materialize_grads=True)
        self.demands.append(("the loss is not finite", loss.detach().isfinite().all()))
        if found:
            self.demands.append(("a gradient is not finite", foreach.finite(found, loss.device)))
        gradients = dict(zip(learning, found, strict=True))
        return {name: gradients[name] if name in gradients else torch.zeros_like(self.weights[name]) for name in names}

    def descend(self, gradients: Mapping[str, Tensor]) -> None:
        """One step of the optimiser with these gradients."""
        self.table.optimizers["optimizer"].step(gradients)

    def rows(self, chosen: Tensor) -> Tensor:
        """Indices of the rows where the mask `[N]` holds, a host read; of all rows in a step that is rehearsing."""
        return (chosen | self.rehearsing).nonzero().flatten()

    def learn_if(self, condition: Tensor, reason: str) -> None:
        """Without a host sync: unless `condition` holds, nothing of this step is learned (counters go on)."""
        self.wishes.append((reason, condition.detach()))

    def restart(self) -> None:
        """Forget what was learned before this batch; generators and counters go on."""
        self.restarted = True
        self.table.restart()

    def note(self, **values: Tensor | float) -> None:
        """Leave numbers for the step's record; tensors are read only when the record is."""
        self.notes |= {name: v.detach() if isinstance(v, Tensor) else v for name, v in values.items()}

    def detail(self, name: str, values: Tensor, names: Iterable[str]) -> None:
        """Leave one number per name (per adapted tensor, say) for the step's record."""
        self.details[name] = (tuple(names), values.detach())


def _nothing_to_adapt(model: nn.Module, what: str) -> str:
    looked = sum(1 for _ in model.modules())
    norms = ", ".join(sorted({type(layer).__name__ for layer in norm_layers(model).values()})) or "none"
    present = {
        "batch norm": bool(batch_norms(model)),
        "norm": bool(affine_norms(model)),
        "convolution or norm": bool(convolutions_and_norms(model)),
        "residual blocks": bool(blocks(model)) and not token_blocks(model),
        "token sequence": bool(token_blocks(model)),
        "linear head": head(model) is not None,
    }
    cards = list_methods()
    suited = ", ".join(name for name, card in cards.items() if all(present.get(need, True) for need in card.needs))
    return (
        f"this method adapts {what}, but {type(model).__name__} has none ({looked} modules looked at; "
        f"normalisation layers: {norms}). Give select=... to a method that has this setting, or choose one whose needs "
        f"this model meets: {suited}."
    )
