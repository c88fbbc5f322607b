"""Frozen, keyword-only settings with a name: what methods and normalisations are made of."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar, Self

__all__ = ["Configured", "at_least", "below", "between", "in_brief", "one_of", "positive", "whole", "whole_or_none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configured:
    """A dataclass of hyper-parameters. Everything that changes lives in the declared state, never here."""

    name: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def preset(cls, name: str) -> Self:
        """The settings published or recommended under this name, as an instance."""
        if name not in cls.presets:
            known = ", ".join(sorted(cls.presets)) or "none"
            raise ValueError(f"{cls.name} has no preset {name!r}. Its presets: {known}.")
        return cls(**cls.presets[name])

    def config(self) -> dict[str, Any]:
        """All settings as JSON values; an object that is none appears as `{"custom": its name}`.

        A function that is the default is left out, and so is a field with `metadata={"recorded": False}`: data that
        a method is given to set itself up with.
        """
        values: dict[str, Any] = {"name": self.name}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("recorded", True) and not (callable(value) and value is field.default):
                values[field.name] = _json(value)
        return values


def _json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Configured):
        return value.config()
    if isinstance(value, (tuple, list)):
        return [_json(item) for item in value]
    return {"custom": getattr(value, "__qualname__", type(value).__qualname__)}


def in_brief(value: Any) -> str:
    """A dataclass as its name, with its preset or else the settings that are not the defaults; else the value itself.

    >>> from acclimate.methods.palm import PALM
    >>> in_brief(PALM()), in_brief(PALM.preset("stable")), in_brief(PALM(steps=2))
    ('palm', 'palm:stable', 'palm(steps=2)')
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    name, changed = getattr(value, "name", "") or type(value).__name__, _changed(value)
    if changed and isinstance(value, Configured):
        for preset in value.presets:
            if value.preset(preset) == value:
                return f"{name}:{preset}"
    listed = ", ".join(f"{key}={in_brief(given)}" for key, given in changed.items())
    return f"{name}({listed})" if listed else name


def _changed(value: Any) -> dict[str, Any]:
    """Fields that are not as in an instance without arguments, where there can be one."""
    try:
        usual = type(value)()
    except TypeError:
        usual = None
    found = {field.name: (getattr(value, field.name), field.default) for field in dataclasses.fields(value)}
    return {name: given for name, (given, default) in found.items() if given != getattr(usual, name, default)}


def positive(**values: float) -> None:
    """ValueError unless every value is a finite number above zero."""
    for name, value in values.items():
        if not (isinstance(value, numbers.Real) and 0 < value < float("inf")):
            raise ValueError(f"{name} must be a finite number above 0, found {value!r}.")


def at_least(low: float, **values: float) -> None:
    """ValueError unless every value is a number of at least `low`."""
    for name, value in values.items():
        if not (isinstance(value, numbers.Real) and value >= low):
            raise ValueError(f"{name} must be at least {low}, found {value!r}.")


def below(high: float, **values: float) -> None:
    """ValueError unless every value is a number below `high`."""
    for name, value in values.items():
        if not (isinstance(value, numbers.Real) and value < high):
            raise ValueError(f"{name} must be below {high}, found {value!r}.")


def between(low: float, high: float, **values: float) -> None:
    """ValueError unless every value lies in `[low, high]`."""
    for name, value in values.items():
        if not (isinstance(value, numbers.Real) and low <= value <= high):
            raise ValueError(f"{name} must lie between {low} and {high}, found {value!r}.")


def whole(low: int, **values: int) -> None:
    """ValueError unless every value is an int of at least `low`; True and False are none."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"{name} must be a whole number of at least {low}, found {value!r}.")


def whole_or_none(low: int, **values: int | None) -> None:
    """As `whole`, where None stands for no value."""
    whole(low, **{name: value for name, value in values.items() if value is not None})


def one_of(*allowed: Any, **values: Any) -> None:
    """ValueError unless every value is one of `allowed`."""
    for name, value in values.items():
        if value not in allowed:
            choices = ", ".join(repr(choice) for choice in allowed)
            raise ValueError(f"{name} must be one of {choices}, found {value!r}.")
