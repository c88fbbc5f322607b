"""What an image shows, in words: its class, and how light it is and on what ground, read off its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acclimate.parts.views import grey

__all__ = ["COLOURS", "Captions", "looks", "named"]

_DARK, _BRIGHT = 0.38, 0.6
_BORDER = 3
COLOURS = {
    "black": (0.1, 0.1, 0.1),
    "grey": (0.5, 0.5, 0.5),
    "white": (0.9, 0.9, 0.9),
    "red": (0.6, 0.25, 0.2),
    "brown": (0.4, 0.3, 0.2),
    "yellow": (0.75, 0.7, 0.4),
    "green": (0.35, 0.45, 0.25),
    "blue": (0.45, 0.6, 0.8),
}
"""Grounds that are told apart, by their mean colour."""

_LIGHTS = ("dark", "", "bright")


def named(name: str) -> str:
    """A class's name with its article; underscores are spaces.

    >>> named("airplane"), named("fire_truck")
    ('an airplane', 'a fire truck')
    """
    plain = name.replace("_", " ")
    return f"{'an' if plain[:1] in 'aeiou' else 'a'} {plain}"


def looks(images: Tensor) -> Tensor:
    """Two numbers for each image `[N, 3, H, W]` in [0, 1], int64 `[N, 2]`: light (dark, middling, bright), and which of
    `COLOURS` is nearest to the mean of its border of three pixels."""
    light = grey(images).mean((1, 2, 3))
    inner = images[:, :, _BORDER:-_BORDER, _BORDER:-_BORDER]
    rim = images.sum((2, 3)) - inner.sum((2, 3))
    rim = rim / (images[0, 0].numel() - inner[0, 0].numel())
    colours = torch.tensor(list(COLOURS.values()), dtype=images.dtype, device=images.device)
    ground = torch.cdist(rim, colours).argmin(1)
    return torch.stack([(light > _DARK).long() + (light > _BRIGHT).long(), ground], 1)


@dataclass(frozen=True)
class Captions:
    """Sentences over `names` that say the class, and sometimes light and ground."""

    names: Sequence[str]

    def draw(self, labels: Tensor, seen: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
        """A true caption for each image, and which captions are true of which images: float `[N, N]`.

        Arguments: `labels` int64 `[N]`; `seen`, what `looks` gives. Each half of a caption is said half of the time.
        """
        says = torch.rand(len(labels), 2, generator=generator) < 0.5
        says[:, 0] &= seen[:, 0] != 1  # nothing is said of middling light
        texts = [
            self.text(label, light if tells[0] else 1, ground if tells[1] else None)
            for label, (light, ground), tells in zip(labels.tolist(), seen.tolist(), says.tolist(), strict=True)
        ]
        true = labels[:, None] == labels
        for part in range(2):
            true &= (seen[:, None, part] == seen[None, :, part]) | ~says[None, :, part]
        return texts, true.float()

    def text(self, label: int, light: int = 1, ground: int | None = None) -> str:
        """One caption.

        >>> Captions(["cat", "airplane"]).text(1, light=0, ground=7)
        'a dark photo of an airplane on blue ground'
        """
        words = f"a {_LIGHTS[light]} photo of {named(self.names[label])}".replace("  ", " ")
        return words if ground is None else f"{words} on {list(COLOURS)[ground]} ground"

    def words(self) -> list[str]:
        """All words of all captions, in alphabetical order."""
        said = " ".join(self.text(label, light) for label in range(len(self.names)) for light in range(len(_LIGHTS)))
        return sorted({*said.split(), "on", "ground", *COLOURS})
