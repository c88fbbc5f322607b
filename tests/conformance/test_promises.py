"""Every registered method, with each preset and variant, keeps every promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from . import checks
from .declarations import subjects
from .models import MODELS

SUBJECTS = subjects()


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("subject", SUBJECTS)
def test_promise(subject: str, check: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    """The promise is in the docstring of the check; besides, no check makes the library print."""
    method, declared = SUBJECTS[subject]
    check(method, *MODELS[declared.model])
    assert capfd.readouterr() == ("", "")
