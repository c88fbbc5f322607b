"""Training of an autoencoder on what was seen of several laboratories, without labels; and the codes it gives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from acclimate.core.storage import fingerprint
from acclimate.fields.cells.embedding.autoencoder import Autoencoder
from acclimate.fields.cells.embedding.views import Views
from acclimate.models.run import Progress, Run, carry_out, warm_cosine

__all__ = ["CodeTraining", "codes", "level", "means", "train_autoencoder"]

_CHUNK = 256
_SMALLEST = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeTraining:
    """How an autoencoder is trained: AdamW, a linear warm-up, then half a cosine.

    Arguments: `epochs`, `batch_size`, `learning_rate`: 10, 128 and 5e-4 of BC-SAM, 300, 64 and 1e-4 of DoRL;
    `weight_decay` 0.05; `warmup`, at most so many steps and at most a tenth of all.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 500

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = max(1, min(self.warmup, steps // 10))
        return self.learning_rate * warm_cosine(step, steps, rise)


def train_autoencoder(
    model: Autoencoder,
    laboratories: Sequence[Views],
    training: CodeTraining,
    output: str | Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    resume: bool = True,
) -> Path:
    """Train on the cells of all laboratories; the model ends with what is written to `output`, a .safetensors file.

    Each cell is taken from a side of its own, drawn anew in each epoch. `progress` gets the epoch, epochs, mean loss
    and mean SSIM. Raises ValueError for no laboratories or other numbers of sides, and as `carry_out` does.
    """
    sides = {len(each.features) for each in laboratories}
    if len(sides) != 1:
        raise ValueError(f"found laboratories seen from {sorted(sides)} sides, expected one number of sides for all.")
    seen = sides.pop()
    features, pictures = [each.features for each in laboratories], [each.pictures for each in laboratories]
    counts = torch.tensor([len(each) for each in laboratories])
    domains = torch.repeat_interleave(torch.arange(len(laboratories)), counts)
    places = torch.cat([torch.arange(len(each)) for each in laboratories])

    def step(index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(seen, (len(index),), generator=generator)
        whose, place = domains[index], places[index]
        maps, drawn = (_picked(parts, whose, chosen, place) for parts in (features, pictures))
        losses = model.losses(maps.float(), drawn.float() / 255, whose, generator)
        return model.loss(losses), (1 - losses.picture.detach()) * len(index)

    name = type(model).__name__
    run = Run(
        name,
        model,
        torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay),
        step,
        training.rate,
        count=len(domains),
        batch_size=training.batch_size,
        epochs=training.epochs,
        seed=seed,
    )
    numbers = {
        **asdict(training),
        "seed": seed,
        "kind": name,
        "data": _digest(*features, *pictures),
        "start": fingerprint(model),
    }
    numbers |= {"domain_weight": model.domain_weight, "feature_weight": model.feature_weight, "pairs": model.pairs}
    header = {"training": json.dumps(numbers, sort_keys=True)}
    return carry_out(run, Path(output).expanduser(), header, progress=progress, resume=resume)


def _picked(parts: Sequence[Tensor], whose: Tensor, chosen: Tensor, place: Tensor) -> Tensor:
    """Of cell `place` in laboratory `whose` the side `chosen`, int64 `[B]` each; a copy of all laboratories together
    would not fit beside them."""
    found = parts[0].new_empty(len(whose), *parts[0].shape[2:])
    for number, part in enumerate(parts):
        here = whose == number
        found[here] = part[chosen[here], place[here]]
    return found


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def codes(model: nn.Module, features: Tensor) -> Tensor:
    """Codes of cells seen from V sides, `[V, N, D, g, g]`: their means over the sides, float32 `[N, code]`."""
    was_training = model.training
    model.eval()
    total = sum(torch.cat([model(part.float()) for part in each.split(_CHUNK)]) for each in features)
    model.train(was_training)
    return torch.as_tensor(total) / len(features)


def means(features: Tensor) -> Tensor:
    """Feature maps `[V, N, D, g, g]`: their means over sides and places, float32 `[N, D]`."""
    return torch.cat([part.float().mean((0, 3, 4)) for part in features.split(_CHUNK, 1)])


def level(found: Tensor) -> Tensor:
    """Codes `[N, D]` of one laboratory, each number with mean 0 and deviation 1 over its cells."""
    return (found - found.mean(0)) / found.std(0, correction=0).clamp_min(_SMALLEST)
