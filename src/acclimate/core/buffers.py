"""Buffers that a model changes in its own forward: found, declared, and changed by answers only."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping

import torch
from torch import Tensor, nn

from acclimate.core.normalization import NormalizationLayer
from acclimate.core.table import Table

__all__ = ["Buffers"]


class Buffers:
    """Watches the buffers of one clone; `pristine` are the values that the source came with.

    A buffer counts as changed when its version moved or when another tensor stands in its place. Layers of
    this library declare their own statistics and are not watched.
    """

    def __init__(self, model: nn.Module, pristine: Mapping[str, Tensor]) -> None:
        self._places: dict[str, tuple[nn.Module, str]] = {}
        for prefix, module in model.named_modules():
            if not isinstance(module, NormalizationLayer):
                for key, _ in module.named_buffers(recurse=False):
                    self._places[f"{prefix}.{key}" if prefix else key] = (module, key)
        self._pristine = {  # a norm that a method has wrapped goes by another name
            name: pristine[name] if name in pristine else self._now(name).clone() for name in self._places
        }
        self._tensors = {name: self._now(name) for name in self._places}
        self._versions = {name: tensor._version for name, tensor in self._tensors.items()}
        self._declared: set[str] = set()

    def pin(self, model: nn.Module) -> None:
        """Undo, after every call of `model`, whatever it changed."""
        model.register_forward_hook(self._undo_all, always_call=True)

    def _undo_all(self, *_: object) -> None:
        self._undo({})

    def _now(self, name: str) -> Tensor:
        module, key = self._places[name]
        return module.get_buffer(key)

    def _changed(self) -> list[str]:
        return [
            name
            for name, tensor in self._tensors.items()
            if self._now(name) is not tensor or tensor._version != self._versions[name]
        ]

    def _hold(self, name: str, value: Tensor) -> None:
        """Put `value` into the tensor that is ours, and that tensor into its place."""
        module, key = self._places[name]
        tensor = self._tensors[name]
        if value is not tensor:
            if value.shape != tensor.shape:
                raise ValueError(
                    f"the model's forward changes the shape of its buffer {name} from {list(tensor.shape)} to "
                    f"{list(value.shape)}, which cannot be undone. Keep that buffer out of the adapted part."
                )
            with torch.no_grad():
                tensor.copy_(value)
        setattr(module, key, tensor)
        self._versions[name] = tensor._version

    def declare(self, table: Table, names: Iterable[str]) -> None:
        """Put these buffers into the table, with the source's values to reset to."""
        for name in names:
            if name in self._tensors and name not in self._declared:
                self._declared.add(name)
                table.declare(
                    f"buffers.{name}",
                    self._tensors[name],
                    initial=self._pristine[name].clone(),
                    kind="buffers",
                    merge="first",
                )

    def keep(self, table: Table) -> None:
        """After an answering forward: what changed is state from now on."""
        changed = self._changed()
        self.declare(table, changed)
        for name in changed:
            self._hold(name, self._now(name))

    @contextlib.contextmanager
    def unchanged(self) -> Generator[None]:
        """Within this block the model may change its buffers; afterwards they are what they were."""
        before = {name: self._tensors[name].clone() for name in self._declared}
        try:
            yield
        finally:
            self._undo(before)

    def _undo(self, before: Mapping[str, Tensor]) -> None:
        for name in self._changed():
            self._hold(name, before.get(name, self._pristine[name]))
