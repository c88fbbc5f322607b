"""A model of the user's own, and a run of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.cli import main

MODEL = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    )
"""


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "my_model.py"
    path.write_text(MODEL)
    return path


@pytest.fixture(scope="session")
def tiny_run(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["run", "bn", "tent", "--stream", "digits:continual", "--size", "24", "--batch-size", "12"]
    options = ["--corruptions", "fog", "contrast", "--model", f"{model_file}:build", "--out", str(folder)]
    assert main([*arguments, *options]) == 0
    return folder
