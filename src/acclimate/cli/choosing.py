"""Methods, settings and models as the command line names them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin

from torch import nn

from acclimate.core.method import Method, methods
from acclimate.core.normalization import normalizations

__all__ = ["choose_methods", "choose_model", "parse_value", "settable"]

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _options(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(option for arm in get_args(hint) for option in _options(arm))
    return (hint,)


def _convert(text: str, option: Any) -> Any:
    """The text as this one type. ValueError or TypeError where it is none."""
    if option is type(None):
        if text.lower() not in ("none", "null"):
            raise ValueError(text)
        return None
    if option is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    if option in (int, float, str):
        return option(text)
    if get_origin(option) is Literal:
        if text not in get_args(option):
            raise ValueError(text)
        return text
    if get_origin(option) in (tuple, list):
        inner = get_args(option)[0] if get_args(option) else str
        return tuple(_convert(item.strip(), inner) for item in text.split(",") if item.strip())
    raise TypeError(text)


def _describe(option: Any) -> str | None:
    if option is type(None):
        return "none"
    if get_origin(option) is Literal:
        return " or ".join(map(repr, get_args(option)))
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    if get_origin(option) in (tuple, list):
        return "values with commas between"
    return words.get(option)


def parse_value(text: str, hint: Any) -> Any:
    """A text as a value of a type annotation: numbers, words, booleans, `none`, literals, tuples.

    Raises:
        ValueError: the text is no such value; the message says what is expected.

    >>> parse_value("1e-4", float), parse_value("none", float | None), parse_value("yes", bool)
    (0.0001, None, True)
    """
    options = sorted(_options(hint), key=lambda option: option is str)
    for option in options:
        try:
            return _convert(text, option)
        except (ValueError, TypeError):
            continue
    expected = [word for word in map(_describe, options) if word]
    if not expected:
        raise ValueError("it takes an object, which only Python can pass")
    raise ValueError(f"found {text!r}, expected {', or '.join(expected)}")


def settable(cls: type[Method]) -> dict[str, Any]:
    """The settings that text can express, with their types; functions and other objects are left out."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: hints[field.name]
        for field in dataclasses.fields(cls)
        if any(_describe(option) for option in _options(hints[field.name]))
    }


def _setting(text: str, chosen: Mapping[str, Method]) -> tuple[str, str, Any]:
    """`label.field=value` as label, field and parsed value."""
    left, equals, value = text.partition("=")
    label, dot, name = left.rpartition(".")
    if not equals or not dot:
        raise ValueError(f"--set {text}: expected METHOD.SETTING=VALUE, such as palm.learning_rate=1e-4.")
    if label not in chosen:
        raise ValueError(f"--set {text}: {label!r} is not among the methods of this run: {', '.join(chosen)}.")
    cls = type(chosen[label])
    fields = settable(cls)
    if name not in fields and name in cls.__dataclass_fields__:
        raise ValueError(
            f"--set {text}: {name} is no plain value and is set from Python only: {cls.__name__}({name}=...)."
        )
    if name not in fields:
        close = get_close_matches(name, fields, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise ValueError(f"--set {text}: {label} has no setting {name!r}. {hint}There are: {', '.join(fields)}.")
    try:
        return label, name, parse_value(value, fields[name])
    except ValueError as error:
        raise ValueError(f"--set {text}: {error}. See acclimate methods {cls.name}.") from error


def choose_methods(
    names: Sequence[str], settings: Sequence[str] = (), normalization: str | None = None
) -> dict[str, Method]:
    """Instances by label from `name` or `name:preset`, with `METHOD.SETTING=VALUE` applied.

    Raises:
        ValueError: an unknown method, preset or setting, a value out of range, or a name given twice.
    """
    chosen: dict[str, Method] = {}
    for name in names:
        if name in chosen:
            raise ValueError(f"{name} is named twice. Name each method once; presets count as others: palm:stable.")
        chosen[name] = methods.build(name)
    changes: dict[str, dict[str, Any]] = {}
    for text in settings:
        label, field, value = _setting(text, chosen)
        changes.setdefault(label, {})[field] = value
    for label, values in changes.items():
        try:
            chosen[label] = dataclasses.replace(chosen[label], **values)
        except ValueError as error:
            raise ValueError(f"--set for {label}: {error}") from error
    if normalization is not None:
        built = normalizations.build(normalization)
        for label, method in chosen.items():
            if method.name != "source":
                chosen[label] = dataclasses.replace(method, normalization=built)
    return chosen


def _usual_model(dataset: str) -> str | None:
    """What tables take as the source model of a data set: one of the library's, else the network of published ones."""
    from acclimate.experiment.reproduce.benchmarks import BENCHMARKS

    usual = {
        name: benchmark.model or benchmark.network
        for benchmark in BENCHMARKS.values()
        for name in (benchmark.dataset, benchmark.validation[0])
    }
    return usual.get(dataset)


def choose_model(
    spec: str | None,
    weights: str | None,
    dataset: str,
    *,
    classes: int | None = None,
    image_shape: tuple[int, int, int] = (3, 32, 32),
    progress: Any = None,
) -> tuple[str, nn.Module]:
    """The model and its name in records: the one named, or the one that belongs to the data set.

    Raises:
        ValueError, FileNotFoundError: as `load_model` and `source_model`.
    """
    from acclimate.models import load_model, source_model

    name = spec or _usual_model(dataset)
    if name is None:
        return dataset, source_model(dataset)
    try:
        return name, load_model(name, weights, classes=classes, image_shape=image_shape, progress=progress)
    except ValueError as error:
        if spec is not None:
            raise
        raise ValueError(f"--model is not given; that of {dataset} is {name}. {error}") from error
