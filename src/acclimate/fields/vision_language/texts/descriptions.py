"""Descriptions of classes, such as those that a language model wrote: sentences by class name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from acclimate.fields.vision_language.reading import read_json
from acclimate.fields.vision_language.texts.names import plain, readable

__all__ = ["described", "load_descriptions"]


def load_descriptions(
    path: str | Path, names: Sequence[str] | None = None, *, others: bool = False
) -> dict[str, tuple[str, ...]]:
    """The sentences of each class from a JSON file `{class name: [sentences]}`, as CuPL's are.

    Names are compared with spaces for underscores.

    Arguments: `path`; `names` of the classes that are told apart, to have them checked here; `others`, whether
    the file may describe classes besides, which are left out (the variants of ImageNet have 200 of its classes).

    Raises FileNotFoundError for no file; ValueError for what is no such JSON, a class without sentences, and, with
    `names`, for missing classes and, unless `others`, unknown ones.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}, expected JSON of the form {{class name: [sentences]}}.")
    read: Any = read_json(file)
    if not isinstance(read, dict) or not read:
        raise ValueError(f"{file} holds {type(read).__name__}, expected an object {{class name: [sentences]}}.")
    try:
        return described(read, list(read) if names is None else names, others=others)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def described(
    descriptions: Mapping[str, Sequence[str]], names: Sequence[str], *, others: bool = False
) -> dict[str, tuple[str, ...]]:
    """The sentences of these classes in their order, by plain name.

    ValueError for classes without sentences, and, unless `others`, for sentences without a class.

    >>> described({"tabby_cat": ["A striped cat."]}, ["tabby cat"])
    {'tabby cat': ('A striped cat.',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for key, sentences in descriptions.items():
        name = plain(key)
        if name in found:
            raise ValueError(f"{name!r} is described twice, as {key!r} too. Put its sentences under one name.")
        valid = isinstance(sentences, (list, tuple)) and all(
            isinstance(each, str) and each.strip() for each in sentences
        )
        if not valid or not sentences:
            raise ValueError(f"found {sentences!r} for {key!r}, expected a list of one or more sentences.")
        found[name] = tuple(sentences)
    wanted = readable(names, repeats=True)
    missing = [name for name in dict.fromkeys(wanted) if name not in found]
    if missing:
        close = get_close_matches(missing[0], found, n=1)
        hint = f" The nearest to {missing[0]!r} is {close[0]!r}." if close else ""
        raise ValueError(
            f"{len(missing)} of {len(wanted)} classes have no description: {', '.join(missing[:5])}.{hint} Add "
            "sentences, or give classes and descriptions the same names."
        )
    unknown = [name for name in found if name not in set(wanted)]
    if unknown and not others:
        raise ValueError(
            f"{len(unknown)} descriptions are of none of the {len(wanted)} classes: {', '.join(unknown[:5])}. Remove "
            "them, or leave them out with load_descriptions(path, names, others=True)."
        )
    return {name: found[name] for name in wanted}
