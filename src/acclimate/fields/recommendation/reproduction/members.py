"""Members that a comparison needs: trained once each, side by side, and kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from acclimate.experiment.side_by_side import side_by_side
from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.splits import Split
from acclimate.fields.recommendation.merging.merged import Merged
from acclimate.fields.recommendation.models.counting import Cost, cost_of
from acclimate.fields.recommendation.models.ranker import Ranker
from acclimate.fields.recommendation.models.registry import build, option_names
from acclimate.fields.recommendation.training.learning import Recipe, answers, train
from acclimate.models.files import read_tensors, write_tensors
from acclimate.models.threads import one_thread

__all__ = ["Member", "Order", "Stock", "Told"]

Told = Callable[[int, int, str], None]

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A member to be trained.

    Arguments: `model`, of `MODELS`, or several joined by `+`, which are trained as one; `seed`, of weights, order and
    dropout; `width` and `options`, by default those of the small preset; `recipe`.
    """

    model: str
    seed: int = 0
    width: int | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    recipe: Recipe = field(default_factory=Recipe)

    def build(self, sizes: Sequence[int]) -> nn.Module:
        """The model before training; of several each takes those of the options that it has."""
        names = self.model.split("+")
        if len(names) == 1:
            return build(self.model, sizes, width=self.width, seed=self.seed, preset="small", **self.options)
        return Merged([replace(self, model=name, options=self._of(name)).build(sizes) for name in names])

    def _of(self, name: str) -> dict[str, Any]:
        return {key: value for key, value in self.options.items() if key in option_names(name)}

    def digest(self) -> str:
        """Sixteen hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """Attributes: `validation`, `test`, float64 logits; `cost`, of a single model, else None; `seconds` of training."""

    order: Order
    validation: Tensor
    test: Tensor
    cost: Cost | None
    seconds: float


class Stock:
    """Members of one data set, in a folder: rows, weights and answers."""

    def __init__(self, folder: Path, name: str, split: Split) -> None:
        self.name, self.split = name, split
        prints = "".join(each.fingerprint() for each in split)
        self.folder = folder / f"{name}-{hashlib.sha256(prints.encode()).hexdigest()[:12]}"
        for part, rows in zip(_PARTS, split, strict=True):
            if not (self.folder / f"{part}.safetensors").is_file():
                rows.save(self.folder / f"{part}.safetensors")

    def have(self, orders: Iterable[Order], *, jobs: int = 1, told: Told | None = None) -> list[Member]:
        """These members, in this order; what is missing is trained, `jobs` at a time, each with one thread."""
        wanted = list(orders)
        missing = list({each.digest(): each for each in wanted if not self._answers(each).is_file()}.values())
        for done, order in enumerate(side_by_side(partial(make, self.folder), missing, jobs)):
            if told is not None:
                told(done + 1, len(missing), f"{self.name}: {order.model}, seed {order.seed}")
        return [self._read(each) for each in wanted]

    def model(self, order: Order) -> nn.Module:
        """The trained model itself, in evaluation mode."""
        model = order.build(self.split.train.sizes)
        model.load_state_dict(read_tensors(_weights(self.folder, order))[0])
        return model.eval()

    def _answers(self, order: Order) -> Path:
        return _answers(self.folder, order)

    def _read(self, order: Order) -> Member:
        tensors, header = read_tensors(self._answers(order))
        cost: dict[str, int] | None = json.loads(header["cost"])
        return Member(
            order,
            tensors["validation"].double(),
            tensors["test"].double(),
            None if cost is None else Cost(**cost),
            float(header["seconds"]),
        )


def make(folder: Path, order: Order) -> None:
    """Train a member and write its answers. In a process of its own it reads the rows once."""
    split = _rows(folder)
    model = order.build(split.train.sizes)
    start = time.perf_counter()
    with one_thread():
        train(model, split, order.recipe, _weights(folder, order), seed=order.seed)
        seconds = time.perf_counter() - start
        found = {"validation": answers(model, split.validation), "test": answers(model, split.test)}
    cost = asdict(cost_of(model)) if isinstance(model, Ranker) else None
    header = {"order": json.dumps(asdict(order)), "cost": json.dumps(cost), "seconds": f"{seconds:.3f}"}
    write_tensors(_answers(folder, order), found, header)


@lru_cache(maxsize=2)
def _rows(folder: Path) -> Split:
    return Split(*(Clicks.load(folder / f"{part}.safetensors") for part in _PARTS))


def _weights(folder: Path, order: Order) -> Path:
    return folder / "weights" / f"{order.digest()}.safetensors"


def _answers(folder: Path, order: Order) -> Path:
    return folder / "members" / f"{order.digest()}.safetensors"
