"""The next character of Python's own library, by a small transformer."""

from __future__ import annotations

import math
from importlib import import_module
from inspect import getsource

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acclimate.fields.wide_area.workloads.workload import Workload
from acclimate.models.initial import private_init

__all__ = ["characters"]

_MODULES = (
    "argparse", "ast", "asyncio.base_events", "collections", "datetime", "decimal", "difflib", "doctest",
    "email.message", "functools", "inspect", "logging", "pathlib", "pickle", "statistics", "subprocess",
)  # fmt: skip
_BLOCK, _WIDTH = 64, 96
_FIRST, _LAST = 32, 126
_CHARACTERS = _LAST - _FIRST + 3
"""Printable ASCII, the line feed, and one for all others."""


def characters() -> Workload:
    """The source of sixteen modules of Python's library, as installed; the last tenth is held out.

    Two layers of width 96 over 64 characters, some 247,000 numbers. The score is minus the held-out bits per character;
    it counts as learned at 3.4 bits. Another version of Python is another text.
    """
    text = "".join(getsource(import_module(name)) for name in _MODULES if _pure(name))
    codes = torch.tensor([_code(character) for character in text], dtype=torch.uint8)
    cut = len(codes) * 9 // 10
    learned, held = codes[:cut].long(), codes[cut:].long()
    starts = torch.arange(0, len(learned) - _BLOCK - 1, _BLOCK // 2)
    windows = held[: len(held) // (_BLOCK + 1) * (_BLOCK + 1)].reshape(-1, _BLOCK + 1)[:64]
    offsets = torch.arange(_BLOCK + 1)

    def loss(model: nn.Module, index: Tensor) -> Tensor:
        return _loss(model, learned[starts[index][:, None] + offsets])

    @torch.no_grad()
    def score(model: nn.Module) -> float:
        return -float(_loss(model, windows)) / math.log(2)

    return Workload(
        name="characters",
        count=len(starts),
        keys=starts,
        build=_Writer.of,
        loss=loss,
        score=score,
        target=-3.4,
        batch_size=8,
        base=lambda parameters, rate: torch.optim.Adam(parameters, rate),
    )


def _pure(name: str) -> bool:
    return str(getattr(import_module(name), "__file__", "")).endswith(".py")


def _code(character: str) -> int:
    place = ord(character)
    if character == "\n":
        return _CHARACTERS - 2
    return place - _FIRST if _FIRST <= place <= _LAST else _CHARACTERS - 1


def _loss(model: nn.Module, windows: Tensor) -> Tensor:
    logits: Tensor = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


class _Writer(nn.Module):
    """Characters `[B, T]` to logits `[B, T, C]` of the next ones."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_CHARACTERS, _WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(_BLOCK, _WIDTH))
        layers = [
            nn.TransformerEncoderLayer(_WIDTH, 4, 4 * _WIDTH, 0.0, batch_first=True, norm_first=True) for _ in "12"
        ]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, _CHARACTERS)

    @classmethod
    def of(cls, seed: int) -> nn.Module:
        with private_init(seed):
            return cls()

    def forward(self, inputs: Tensor) -> Tensor:
        length = inputs.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool, device=inputs.device).triu(1)
        hidden = self.embedding(inputs) + self.places[:length]
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask)
        return self.head(self.norm(hidden))
