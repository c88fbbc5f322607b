"""Pictures with captions as markup that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.streams.shared import require

__all__ = ["gallery"]

_ROW = "display:flex;flex-wrap:wrap;gap:.7rem .6rem;margin:.4rem 0"
_CELL = "margin:0;font-size:.74rem;line-height:1.3;overflow-wrap:anywhere"


def gallery(pictures: Iterable[tuple[NDArray[np.uint8], Sequence[str]]], width: int = 112) -> str:
    """Pictures uint8 `[H, W, 3]` side by side, each above its lines of text, `width` pixels wide on the page."""
    cells = [
        f'<figure style="{_CELL};width:{width}px"><img alt="{escape(lines[0] if lines else "a cell")}" width="{width}" '
        f'style="display:block;border-radius:4px;margin-bottom:.2rem" src="{_source(picture)}">'
        f"<figcaption>{'<br>'.join(map(escape, lines))}</figcaption></figure>"
        for picture, lines in pictures
    ]
    return f'<div style="{_ROW}">{"".join(cells)}</div>'


def _source(picture: NDArray[np.uint8]) -> str:
    pillow: Any = require("PIL.Image", "Writing pictures", "cells")
    kept = io.BytesIO()
    pillow.fromarray(picture).save(kept, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(kept.getvalue()).decode()}"
