"""Training of a ranker, or of several as one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from acclimate.core.config import one_of, positive, whole
from acclimate.core.storage import fingerprint
from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.splits import Split
from acclimate.fields.recommendation.measuring.scores import auc, log_losses
from acclimate.models.initial import private_init
from acclimate.models.judged import JudgedRun
from acclimate.models.run import Progress, carry_out

__all__ = ["PUBLISHED", "Recipe", "answers", "train"]

_ROWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Adam on the mean log loss, at one rate; rows in a new order in each epoch.

    After each epoch the validation rows are scored; the best epoch is kept, and training ends `patience` epochs after
    it, or after `epochs`. `weight_decay` acts on all weights, embeddings among them, as L2. `judge` is "log_loss", or
    "auc" as published, which on small data keeps models that are far too sure. The defaults suit tens of thousands of
    rows; `PUBLISHED` is the paper's example.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    batch_size: int = 1024
    epochs: int = 20
    patience: int = 2
    judge: str = "log_loss"

    def __post_init__(self) -> None:
        positive(learning_rate=self.learning_rate)
        whole(1, batch_size=self.batch_size, epochs=self.epochs, patience=self.patience)
        one_of("auc", "log_loss", judge=self.judge)


PUBLISHED = Recipe(learning_rate=1e-4, weight_decay=0.0, batch_size=4096, epochs=1, patience=1, judge="auc")
"""One epoch, of the tens of millions of rows of Avazu."""


def train(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    output: str | Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    resume: bool = True,
) -> Path:
    """Train from ids `[B, F]` to logits `[B]`; the model ends as it is written to `output`, a .safetensors file.

    A `Merged` model is trained as one, on the log loss of its merged logits: the published group trainer. `progress`
    gets the epoch, epochs, mean loss and accuracy. An interrupted run goes on where it was.

    Raises ValueError where training or validation rows have one label only, and as `carry_out` does.
    """
    ids, labels = split.train.ids, split.train.labels
    for name, rows in (("training", split.train), ("validation", split.validation)):
        if not len(rows) or bool((rows.labels == rows.labels[0]).all()):
            raise ValueError(f"the {len(rows)} {name} rows have one label only. Take rows of both.")

    def step(index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        with private_init(int(torch.randint(2**31, (), generator=generator))):  # dropout draws from here
            logits = model(ids[index])
        wanted = labels[index]
        return F.binary_cross_entropy_with_logits(logits, wanted), ((logits > 0) == (wanted > 0.5)).sum()

    def judge() -> float:
        found, wanted = answers(model, split.validation).double().numpy(), split.validation.labels.double().numpy()
        return auc(found, wanted) if recipe.judge == "auc" else -float(log_losses(found, wanted).mean())

    name = type(model).__name__
    run = JudgedRun(
        name,
        model,
        torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True),
        step,
        lambda number, steps: recipe.learning_rate,
        count=len(ids),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=seed,
        judge=judge,
        patience=recipe.patience,
    )
    data = [split.train.fingerprint(), split.validation.fingerprint()]
    numbers = {**asdict(recipe), "seed": seed, "kind": name, "data": data, "start": fingerprint(model)}
    header = {"training": json.dumps(numbers, sort_keys=True)}
    return carry_out(run, Path(output).expanduser(), header, progress=progress, resume=resume)


@torch.no_grad()
def answers(model: nn.Module, rows: Clicks, *, batch_size: int = _ROWS) -> Tensor:
    """Logits of rows, `[N]`, in evaluation mode."""
    was_training = model.training
    model.eval()
    found = torch.cat([model(part) for part in rows.ids.split(batch_size)])
    model.train(was_training)
    return found
