"""A stream in which an attacker's rows stand among those of others, in its first half."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from acclimate.core.storage import fingerprint
from acclimate.experiment.poison.attack import Attack, Scene
from acclimate.streams import CLEAN, Batch, Dataset, Segment, Stream
from acclimate.streams.shifting import shifted
from acclimate.streams.stream import JSON

__all__ = ["AFTER", "ATTACKED", "PoisonedStream"]

ATTACKED, AFTER = Segment("under attack", 0), Segment("after", 0)
"""The two halves of every poisoned stream."""

_POOL = 200
"""Rows that an offline attack makes, to draw from."""


class PoisonedStream(Stream):
    """The batches of a benign stream; to those of the first half an attack adds rows of its own, shuffled among them.

    Added rows have the label -1, so that errors are those of benign rows, and the index -1. They are made once and
    kept, so that every method meets the same rows. A last batch that would make the halves uneven is left out.

    Arguments:
        benign: what others send, one domain at a time.
        own: the attacker's pictures, such as those of the other split.
        attack: what is added.
        model: the source, for attacks that know its weights.
        seed: of what the attacker draws.
    """

    def __init__(self, benign: Stream, own: Dataset, attack: Attack, model: nn.Module, *, seed: int = 0) -> None:
        super().__init__(benign.name, (ATTACKED, AFTER), benign.classes, benign.batch_size)
        self._benign, self._own, self.attack = benign, own, attack
        self._model, self._seed = copy.deepcopy(model).cpu().eval().requires_grad_(False), seed
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._benign) // 2 * 2

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._benign.image_shape

    def __iter__(self) -> Iterator[Batch]:
        half = len(self) // 2
        for batch in self._benign:
            if batch.position == 2 * half:
                return
            segment = ATTACKED if batch.position < half else AFTER
            images, labels, index = batch.images, batch.labels, batch.index
            if segment is ATTACKED:
                added = self._rows(batch)
                unknown = torch.full((len(added),), -1, dtype=torch.int64)
                turn = torch.randperm(len(images) + len(added), generator=self._generator("turn", batch.position))
                images = torch.cat([images, added])[turn]
                labels, index = torch.cat([labels, unknown])[turn], torch.cat([index, unknown])[turn]
            yield Batch(images, labels, index, segment, batch.position)

    def _rows(self, batch: Batch) -> Tensor:
        """The attack's rows for this batch."""
        attack = self.attack
        count = attack.count(len(batch.images))
        if attack.knows.when == "online":
            if batch.position not in self._made:
                self._made[batch.position] = attack.rows(self._scene(batch, count, batch.segment))
            return self._made[batch.position]
        if 0 not in self._made:
            self._made[0] = attack.rows(self._scene(batch, _POOL, CLEAN))
        return self._made[0][torch.randint(_POOL, (count,), generator=self._generator("pool", batch.position))]

    def _scene(self, batch: Batch, count: int, shift: Segment) -> Scene:
        knows = self.attack.knows
        return Scene(
            count=count,
            labels=self._own.labels,
            take=lambda index: shifted(self._own, index, shift, self._seed),
            generator=self._generator("rows", batch.position),
            model=self._model if knows.weights == "source" else None,
            benign=batch.images if knows.benign else None,
            position=batch.position,
        )

    def _generator(self, what: str, position: int) -> torch.Generator:
        digest = hashlib.sha256(f"{self._seed} {what} {position}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))

    def protocol(self) -> dict[str, JSON]:
        told: dict[str, JSON] = {
            "attack": self.attack.config(),
            "attacked": len(self) // 2,
            "own": f"{self._own.name} {self._own.split}",
            "source": fingerprint(self._model),
            "seed": self._seed,
        }
        return {**self._benign.protocol(), "poison": told}

    def fingerprint(self) -> str:
        """SHA-256 over the benign stream's, the attack and the source: the rows follow from them."""
        told = [self._benign.fingerprint(), self.protocol()["poison"]]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
