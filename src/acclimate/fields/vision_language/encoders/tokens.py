"""Texts as the numbers that a text encoder was trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Tokens", "texts_only"]

_log = logging.getLogger(__name__)


class Tokens:
    """Texts to tokens `[n, T]`, padded on the right and cut at `limit`, what marks the end being kept.

    Arguments: `tokenizer`, of `transformers`; `limit` tokens at most; with `whole` all are padded to it and the padding
    is attended to, as SigLIP was trained; otherwise T is the longest of the texts, and a mask leaves the padding out.

    `truncated` counts the texts that were cut; the first time, a warning is logged.
    """

    def __init__(self, tokenizer: Any, limit: int, *, whole: bool = False) -> None:
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._tokenizer = tokenizer
        self.limit = limit
        self.whole = whole
        self.truncated = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokens:
        return self  # it does not adapt

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """`input_ids` and, unless `whole`, `attention_mask`. ValueError for a string instead of several."""
        texts_only(texts)
        self._count(texts)
        found = self._tokenizer(
            list(texts),
            truncation=True,
            max_length=self.limit,
            padding="max_length" if self.whole else "longest",
            padding_side="right",  # tokenizers of SigLIP 2 say left by default; it was trained otherwise
            return_tensors="pt",
        )
        names = ("input_ids",) if self.whole else ("input_ids", "attention_mask")
        return {name: found[name] for name in names}

    def words(self, text: str) -> Tensor:
        """The tokens of a text alone, `[M]`, without those that mark begin and end."""
        return torch.tensor(self._tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.int64)

    def _count(self, texts: Sequence[str]) -> None:
        rows = self._tokenizer(list(texts), verbose=False)["input_ids"]
        cut = [text for text, row in zip(texts, rows, strict=True) if len(row) > self.limit]
        if cut and not self.truncated:
            _log.warning(
                "%r has more than the %d tokens of this text encoder and was cut, its end mark kept; others that are "
                "will be counted in `truncated`. Shorten such texts.",
                cut[0] if len(cut[0]) < 80 else f"{cut[0][:79]}…",
                self.limit,
            )
        self.truncated += len(cut)


def texts_only(texts: Sequence[str]) -> None:
    """ValueError for anything but some strings."""
    if isinstance(texts, str) or not len(texts) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"found {texts!r}, expected a list of one or more texts, such as ['a photo of a cat.'].")
