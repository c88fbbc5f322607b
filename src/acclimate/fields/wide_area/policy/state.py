"""Reading saved states back with suspicion."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["expect_keys"]


def expect_keys(state: Mapping[str, Any], keys: Collection[str], whose: str) -> None:
    """ValueError unless a saved state has exactly these keys.

    >>> expect_keys({"a": 1}, ("a",), "the estimator")
    """
    if set(state) != set(keys):
        raise ValueError(
            f"The state of {whose} holds {', '.join(sorted(map(str, state))) or 'nothing'}; expected "
            f"{', '.join(sorted(keys))}. Load what its state_dict() returned."
        )
