"""Models of `transformers` as plain functions: images, or tokens, to features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ImageTower", "PatchTower", "TextTower"]


class _Tower(nn.Module):
    """A model and the projection behind it."""

    def __init__(self, model: nn.Module, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.projection = projection

    def pooled(self, **inputs: Any) -> Tensor:
        """What the model makes of its inputs, `[n, D]`. ValueError if it pools nothing."""
        found = getattr(self.model(**inputs), "pooler_output", None)
        if not isinstance(found, Tensor):
            raise ValueError(
                f"{type(self.model).__name__} returns no pooler_output, expected one feature for each input. Choose "
                "another model, or wrap it in a callable that returns features [n, D]."
            )
        found = found.flatten(1)
        return found if self.projection is None else self.projection(found)


class ImageTower(_Tower):
    """Pixels `[n, 3, H, W]` to features `[n, D]`."""

    def forward(self, pixels: Tensor) -> Tensor:
        return self.pooled(pixel_values=pixels)


class PatchTower(_Tower):
    """The same for models that take patches of `side` pixels in a row, as SigLIP 2 of variable shape does."""

    def __init__(self, model: nn.Module, side: int) -> None:
        super().__init__(model)
        self.side = side

    def forward(self, pixels: Tensor) -> Tensor:
        rows, columns = (size // self.side for size in pixels.shape[-2:])
        patches = pixels.unflatten(3, (columns, self.side)).unflatten(
            2, (rows, self.side)
        )  # [n, 3, rows, s, columns, s]
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # [n, rows * columns, s * s * 3]
        shape = torch.tensor([rows, columns], device=pixels.device).expand(len(pixels), 2)
        mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=pixels.device)
        return self.pooled(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shape)


class TextTower(_Tower):
    """Tokens `[n, T]`, with the mask of those that are no padding, to features `[n, D]`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.pooled(input_ids=input_ids, attention_mask=attention_mask)

    def embedding(self) -> nn.Embedding:
        """The table of its tokens."""
        model: Any = self.model
        return model.get_input_embeddings()
