"""The base of all rankers: one embedding table, checked ids, options that can be written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from acclimate.core.config import whole

__all__ = ["FILED", "MLP_DIMS", "Ranker", "checked_sizes", "register", "to_eights"]

MLP_DIMS = (1024, 512, 256)
"""Widths of the published deep parts."""

_FILED: dict[str, type[Ranker]] = {}
FILED: Mapping[str, type[Ranker]] = MappingProxyType(_FILED)
"""What was registered so far; `registry.MODELS` is the same with all of this library's."""

R = TypeVar("R", bound="type[Ranker]")


class Ranker(nn.Module):
    """Global ids `[B, F]` -> logits `[B]` of a click.

    A global id is the number within the field plus the sizes of all fields before it, so that one table
    `E [V, d]`, drawn Xavier-uniform, serves every field. A model implements `score`, hands its options to this
    constructor, and is filed with `register`. Make one with `registry.build`, which draws weights from a seed of their
    own; the bare constructor draws from torch's global generator.

    Arguments:
        sizes: how many ids each field has, each 1 or more.
        width: d, numbers of an embedding, 1 or more.
        options: everything else the model is made of, as JSON values or tuples.

    Raises:
        ValueError: no field, a size or a width below 1.
    """

    name: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "small": {"mlp_dims": (128, 64), "dropout": 0.2},
    }

    def __init__(self, sizes: Sequence[int], width: int, **options: Any) -> None:
        super().__init__()
        whole(1, width=width)
        self.sizes, self.width = checked_sizes(sizes), width
        self._options = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
        self.embedding = nn.Embedding(sum(self.sizes), width)
        nn.init.xavier_uniform_(self.embedding.weight)
        ends = torch.tensor(list(accumulate(self.sizes)))
        self.register_buffer("_ends", ends, persistent=False)
        self.register_buffer("_starts", ends - torch.tensor(self.sizes), persistent=False)

    @property
    def fields(self) -> int:
        """F."""
        return len(self.sizes)

    @property
    def flat(self) -> int:
        """D = F d, numbers of a row's embeddings put in a line."""
        return self.fields * self.width

    def options(self) -> dict[str, Any]:
        """JSON values: all that `build` needs beside name, sizes, width and seed."""
        return {key: list(value) if isinstance(value, list) else value for key, value in self._options.items()}

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `[B]` of rows of global ids, int64 `[B, F]`.

        Raises:
            ValueError: ids of another shape or type, or, for ids on the CPU, one outside its field. Ids on an
                accelerator are not looked at, which would make it wait; nor are those of a compiled or exported model.
        """
        if ids.ndim != 2 or ids.shape[1] != self.fields or ids.dtype != torch.int64:
            raise ValueError(
                f"the ids are {str(ids.dtype).removeprefix('torch.')} {list(ids.shape)}; expected int64 "
                f"[B, {self.fields}], the global id of each field."
            )
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():
            self._check_range(ids)
        return self.score(self.embedding(ids))

    def _check_range(self, ids: Tensor) -> None:
        starts, ends = self.get_buffer("_starts"), self.get_buffer("_ends")
        if starts.device != ids.device:
            raise ValueError(f"the ids are on {ids.device}, the model on {starts.device}. Move one of them.")
        outside = (ids < starts) | (ids >= ends)
        if outside.any():
            row, field = outside.nonzero()[0].tolist()
            raise ValueError(
                f"row {row}, field {field} has the id {int(ids[row, field])}; expected {int(starts[field])} to "
                f"{int(ends[field]) - 1}. Ids are global: add the sizes of all fields before."
            )

    def score(self, embedded: Tensor) -> Tensor:
        """Logits `[B]` of embedded rows `[B, F, d]`."""
        raise NotImplementedError(f"{type(self).__name__} has no score")

    @classmethod
    def fitting(cls, width: int, fields: int, options: Mapping[str, Any]) -> int:
        """The smallest width of at least this one that the model can have."""
        return width

    @classmethod
    def widened(cls, options: Mapping[str, Any], factor: float) -> dict[str, Any]:
        """The options with every layer's width times a factor of 1 or more, those of MLPs as multiples of 8."""
        if "mlp_dims" not in options:
            raise ValueError(f"{cls.name} has no layers to widen or deepen. Scale its embedding.")
        return {**options, "mlp_dims": to_eights(options["mlp_dims"], factor)}

    @classmethod
    def deepened(cls, options: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """The options with this many layers more, here copies of the MLP's last."""
        if "mlp_dims" not in options:
            raise ValueError(f"{cls.name} has no layers to widen or deepen. Scale its embedding.")
        return {**options, "mlp_dims": [*options["mlp_dims"], *options["mlp_dims"][-1:] * steps]}


def register(name: str) -> Callable[[R], R]:
    """Class decorator that files a ranker under `name`; ValueError where another class has it."""

    def file(cls: R) -> R:
        known = _FILED.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"the ranker {name!r} is {known.__module__}.{known.__qualname__}. Take another name.")
        cls.name = name
        _FILED[name] = cls
        return cls

    return file


def checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of all fields; ValueError for none, or one that is no whole number of 1 or more."""
    if not len(sizes):
        raise ValueError("there is no field; expected the number of ids of one field or more.")
    whole(1, **{f"sizes[{field}]": size for field, size in enumerate(sizes)})
    return tuple(sizes)


def to_eights(dims: Sequence[int], factor: float) -> list[int]:
    """Each width times the factor, as the nearest multiple of 8, 8 at least.

    >>> to_eights((128, 64), 1.4)
    [176, 88]
    """
    return [max(8, 8 * round(size * factor / 8)) for size in dims]
