"""Training of a ranker, or of several as one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from acclimate.core.config import at_least, below, one_of, positive, whole
from acclimate.core.storage import fingerprint
from acclimate.fields.recommendation.data.clicks import Clicks
from acclimate.fields.recommendation.data.splits import Split, check_labels
from acclimate.fields.recommendation.measuring.scores import auc, log_losses
from acclimate.fields.recommendation.models.described import described
from acclimate.models.files import read_tensors
from acclimate.models.initial import private_init
from acclimate.models.judged import JudgedRun
from acclimate.models.run import Progress, carry_out, checkpoint_of

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
        at_least(0, weight_decay=self.weight_decay)
        below(float("inf"), weight_decay=self.weight_decay)
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
    gets the epoch, epochs, mean loss and accuracy. A ranker's file is one that `load_member` reads.

    An interrupted run goes on where it was, to the same bits: with a model as it was at the start, or with the
    interrupted one itself, which is left as it was after its last whole epoch. Weights of another start are refused.

    Rows stay on the CPU and go to the model's device batch by batch. Dropout draws from the seed, under the lock of
    `private_init`; on an accelerator, from that device's generator, which nothing here seeds.

    Raises ValueError where training or validation rows have one label only, and as `carry_out` does.
    """
    ids, labels = split.train.ids, split.train.labels
    check_labels("training", split.train)
    check_labels("validation", split.validation)
    output, where = Path(output).expanduser(), _device(model)

    def step(index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        with private_init(int(torch.randint(2**31, (), generator=generator))):  # dropout draws from here
            logits = model(ids[index].to(where))
        wanted = labels[index].to(where)
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
    start = (_start_of(checkpoint_of(output), model) if resume else None) or fingerprint(model)
    numbers = {**asdict(recipe), "seed": seed, "kind": name, "data": data, "start": start}
    header = {**described(model), "training": json.dumps(numbers, sort_keys=True)}
    return carry_out(run, output, header, progress=progress, resume=resume)


@torch.no_grad()
def answers(model: nn.Module, rows: Clicks, *, batch_size: int = _ROWS) -> Tensor:
    """Logits of rows, `[N]`, in evaluation mode: computed where the model is, and on the CPU in the end."""
    was_training, where = model.training, _device(model)
    model.eval()
    found = torch.cat([model(part.to(where)).cpu() for part in rows.ids.split(batch_size)])
    model.train(was_training)
    return found


def _device(model: nn.Module) -> torch.device:
    """Where its first parameter or buffer is; the CPU for a model without any."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def _start_of(checkpoint: Path, model: nn.Module) -> str | None:
    """The fingerprint that a run started from, if its checkpoint has the weights that the model has now."""
    try:
        tensors, header = read_tensors(checkpoint)
        start = str(json.loads(header["training"])["start"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    kept = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    own = model.state_dict()
    same = kept.keys() == own.keys() and all(torch.equal(kept[name], value.cpu()) for name, value in own.items())
    return start if same else None
