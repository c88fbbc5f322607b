"""The classifier of a vision-language model: one text feature for each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from acclimate.core.config import whole
from acclimate.fields.vision_language.lengths import direction
from acclimate.fields.vision_language.texts.descriptions import described
from acclimate.fields.vision_language.texts.names import readable
from acclimate.fields.vision_language.texts.templates import templates_of
from acclimate.parts.features import unit

__all__ = ["prompts", "text_matrix"]


@torch.no_grad()
def text_matrix(
    encode_text: Callable[[list[str]], Tensor],
    names: Sequence[str],
    *,
    templates: str | Sequence[str] | None = "simple",
    descriptions: Mapping[str, Sequence[str]] | None = None,
    repeats: bool = False,
    batch: int = 256,
) -> Tensor:
    """Unit text features of K classes, `[K, D]`, float32: `norm(mean_j norm(encode(prompt_j)))`.

    Which texts these are moves zero-shot answers by several points, so results should say it. The published ones of
    COSMIC and DMN are with templates and descriptions together; both alone are baselines of their own.

    Arguments:
        encode_text: a list of n texts to features `[n, D]`, such as `clip.encode_text`.
        names: of the classes, in the order of labels; underscores become spaces.
        templates: a name of `TEMPLATES`, one template or several with `{}`; None for descriptions alone.
        descriptions: sentences of each class, as of `load_descriptions`, averaged along with the templates' prompts.
        repeats: allow a name to occur twice, whose rows are then equal.
        batch: texts that are encoded at once, >= 1.

    Raises ValueError for no classes, names that repeat, bad templates, missing or unknown descriptions, and for
    features that are not `[n, D]` of finite numbers, not all zero.
    Cost: one forward of the text encoder for each prompt.

    >>> def letters(texts):
    ...     return torch.tensor([[text.count(letter) for letter in "aeiou"] for text in texts])
    >>> text_matrix(letters, ["maine_coon", "beagle"], templates="tip7").shape
    torch.Size([2, 5])
    """
    whole(1, batch=batch)
    texts = prompts(names, templates=templates, descriptions=descriptions, repeats=repeats)
    lines = [text for of_class in texts for text in of_class]
    rows = torch.tensor([row for row, of_class in enumerate(texts) for _ in of_class])
    total: Tensor | None = None
    for start in range(0, len(lines), batch):
        part = lines[start : start + batch]
        found = direction(_checked(encode_text(part), part))
        if total is None:
            total = found.new_zeros(len(texts), found.shape[1])
        total.index_add_(0, rows[start : start + batch].to(found.device), found)
    assert total is not None
    if not total.norm(dim=1).gt(1e-6).all():
        raise ValueError("the prompts of a class cancel one another out, expected features on one side. Check them.")
    return unit(total)


def prompts(
    names: Sequence[str],
    *,
    templates: str | Sequence[str] | None = "simple",
    descriptions: Mapping[str, Sequence[str]] | None = None,
    repeats: bool = False,
) -> list[list[str]]:
    """The texts of each class, templates first. Arguments and errors as of `text_matrix`.

    >>> prompts(["maine_coon"], templates=["a {}."], descriptions={"maine coon": ["A large cat."]})
    [['a maine coon.', 'A large cat.']]
    """
    classes, patterns = readable(names, repeats=repeats), templates_of(templates)
    sentences = {} if descriptions is None else described(descriptions, classes)
    if not patterns and not sentences:
        raise ValueError("found neither templates nor descriptions, expected texts of the classes. Pass either.")
    return [[*(pattern.replace("{}", name) for pattern in patterns), *sentences.get(name, ())] for name in classes]


def _checked(features: Tensor, texts: Sequence[str]) -> Tensor:
    valid = isinstance(features, Tensor) and features.ndim == 2 and len(features) == len(texts)
    if not valid:
        found = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"encode_text made {found} of {len(texts)} texts, expected features [{len(texts)}, D].")
    bad = ~(features.isfinite().all(1) & features.any(1))
    if bad.any():
        raise ValueError(
            f"the feature of {texts[int(bad.nonzero()[0])]!r} is zero or not finite. Load weights that are whole."
        )
    return features
