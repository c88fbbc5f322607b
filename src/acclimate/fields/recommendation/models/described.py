"""How a ranker was built, for the header of a file of its weights."""

from __future__ import annotations

import hashlib
import json

from torch import nn

from acclimate.fields.recommendation.models.ranker import Ranker

__all__ = ["described"]


def described(model: nn.Module) -> dict[str, str]:
    """Two entries, none for other models.

    `built` is name, sizes, width and options for `registry.build` as JSON, and `built_sha256` the SHA-256 of that text.

    >>> from acclimate.fields.recommendation.models.registry import build
    >>> described(build("fm", [5, 7]))["built"]
    '{"name": "fm", "sizes": [5, 7], "width": 16, "options": {}}'
    """
    if not isinstance(model, Ranker):
        return {}
    made = {"name": model.name, "sizes": model.sizes, "width": model.width, "options": model.options()}
    text = json.dumps(made)
    return {"built": text, "built_sha256": hashlib.sha256(text.encode()).hexdigest()}
