"""Where trained weights are kept."""

from __future__ import annotations

import os
from pathlib import Path

from acclimate.models.recipes import Recipe

__all__ = ["cache_folder", "kept_weights"]


def cache_folder() -> Path:
    """`$ACCLIMATE_CACHE`, else `$XDG_CACHE_HOME/acclimate`, else `~/.cache/acclimate`."""
    own = os.environ.get("ACCLIMATE_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "acclimate"


def kept_weights(recipe: Recipe) -> Path:
    """The file of a recipe's weights; its name carries all choices of the recipe."""
    return cache_folder() / "models" / f"{recipe.name}-{recipe.digest()}.safetensors"
