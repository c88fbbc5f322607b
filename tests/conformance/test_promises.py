"""Every registered method, with each preset and variant, keeps every promise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from _pytest.mark import ParameterSet

from . import checks
from .declarations import subjects
from .models import MODELS

SUBJECTS = subjects()
OF_NUMBERS = ("learns", "numbers", "passes", "state_bytes", "explosion", "batch_of_one", "save")
"""A preset is the same method with other numbers: the promises that do not ask for numbers are `slow` for presets."""

LONG = ("deferred", "exceptions")
"""Each runs many others, or itself over many places: of variants too they are `slow`."""


def cases() -> list[ParameterSet]:
    found: list[ParameterSet] = []
    for subject, check in itertools.product(SUBJECTS, checks.ALL):
        name = check.__name__.removeprefix("check_")
        rare = (":" in subject and name not in OF_NUMBERS) or ("-" in subject and name in LONG)
        marks = (pytest.mark.slow,) if rare else ()
        found.append(pytest.param(subject, check, id=f"{subject}-{name}", marks=marks))
    return found


@pytest.mark.parametrize(("subject", "check"), cases())
def test_promise(subject: str, check: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    """The promise is in the docstring of the check; besides, no check makes the library print."""
    method, declared = SUBJECTS[subject]
    check(method, *MODELS[declared.model])
    assert capfd.readouterr() == ("", "")
