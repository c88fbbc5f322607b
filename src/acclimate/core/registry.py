"""Named families: methods and normalisations, found by decorator, or by entry point from other packages."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from acclimate.core.config import Configured

__all__ = ["Registry"]

T = TypeVar("T", bound=Configured)
C = TypeVar("C", bound=Configured)


class Registry(Generic[T]):
    """Classes of one family by name.

    `package` is imported, module by module, on the first look-up, so that a new file there is enough;
    then the entry points of the group of the same name, so that `pip install` of another package is enough.
    `annexes`, as `module:name`, are registries of applications on top, which are looked into for names that are not
    here: they belong to the family, and are not among its `classes`.
    """

    def __init__(self, family: str, package: str, base: type[T], annexes: tuple[str, ...] = ()) -> None:
        self.family = family
        self._annexes = annexes
        self._base = base
        self._package = package
        self._classes: dict[str, type[Any]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Class decorator that files the class under `name`."""

        def file(cls: type[C]) -> type[C]:
            known = self._classes.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f"the {self.family} name {name!r} is taken by {known.__module__}.{known.__qualname__}. "
                    f"Register {cls.__qualname__} under another name."
                )
            cls.name = name
            self._classes[name] = cls
            return cls

        return file

    def classes(self) -> Mapping[str, type[T]]:
        """Every class of the family, by name."""
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            for entry in importlib.metadata.entry_points(group=self._package):
                try:
                    entry.load()
                except Exception as error:  # another package's fault must not take ours down
                    warnings.warn(f"the {self.family} plug-in {entry.value} cannot be imported: {error}", stacklevel=2)
        return dict(sorted(self._classes.items()))

    def build(self, spec: str | T | Mapping[str, Any]) -> T:
        """An instance from a name, `name:preset`, a saved configuration, or an instance itself."""
        if isinstance(spec, self._base):
            return spec
        if isinstance(spec, str):
            name, _, preset = spec.partition(":")
            cls = self._named(name)
            return cls.preset(preset) if preset else cls()
        if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
            raise ValueError(
                f"found {spec!r} for a {self.family}, expected its name, name:preset, or an instance such as "
                f"{next(iter(self.classes().values())).__name__}()."
            )
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in spec.items()}
        cls = self._named(str(values.pop("name")))
        custom = [key for key, value in values.items() if isinstance(value, dict) and "custom" in value]
        if custom:
            raise ValueError(
                f"this {cls.name} was built with objects that a file cannot hold ({', '.join(custom)}). "
                f"Pass the same {self.family} instance again."
            )
        try:
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"these are no settings of {self.family} {cls.name}: {error}.") from error

    def _named(self, name: str) -> type[T]:
        classes = self.classes()
        for annex in () if name in classes else self._annexes:
            module, _, attribute = annex.partition(":")
            other: Registry[T] = getattr(importlib.import_module(module), attribute)
            classes = {**classes, **other.classes()}
        if name not in classes:
            close = difflib.get_close_matches(name, classes, n=3)
            hint = f"Did you mean {' or '.join(close)}? " if close else ""
            raise ValueError(f"there is no {self.family} {name!r}. {hint}There are: {', '.join(classes)}.")
        return classes[name]
