"""State files taken apart and put together again, for the tests of what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import acclimate

from .models import MODELS
from .tools import assert_same

FACTORY, BATCH = MODELS["batch_norm"]
KEY = "acclimate"


def parts(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[KEY])  # noqa: SIM118


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    tensors, header = parts(path)
    change(tensors, header)
    save_file(tensors, path, {KEY: json.dumps(header)})


def refused(path: Path, match: str | None = None, **options: Any) -> None:
    """ValueError with a sentence in it, and the model is as it was."""
    model = FACTORY()
    with pytest.raises(ValueError, match=match) as caught:
        acclimate.load(model, path, **options)
    assert type(caught.value) is ValueError
    assert len(str(caught.value).split()) > 5
    twin = FACTORY()
    for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert_same(ours, theirs, name)
