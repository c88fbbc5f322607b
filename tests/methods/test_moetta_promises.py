"""MoETTA's layers, which stand in the place of norms, keep the library's promises on every kind of model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.checks import callers, costs, source, state, transactions
from conformance.models import MODELS

CHECKS = (
    source.check_unwrap,
    source.check_overlay,
    source.check_frozen,
    state.check_reset,
    state.check_snapshot,
    state.check_deepcopy,
    state.check_save,
    state.check_merged,
    costs.check_passes,
    costs.check_state_bytes,
    transactions.check_bad_rows,
    transactions.check_bad_gradients,
    callers.check_answer_after,
    callers.check_numbers,
)

ODD = {
    ("text", transactions.check_bad_rows): "token ids have no bad rows",
    ("buffered", callers.check_numbers): "this model's own arithmetic fails under autocast",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize(
    "model", ["class_token_vit", "group_norm", "tied", "mlp", "sync_batch_norm", "buffered", "text"]
)
def test_promise(model: str, check: Callable[..., None]) -> None:
    if (model, check) in ODD:
        pytest.skip(ODD[model, check])
    check("moetta", *MODELS[model])
