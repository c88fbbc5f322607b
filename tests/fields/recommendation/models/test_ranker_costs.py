"""Multiply-adds and parameters against the table of the specification, and against counts by hand."""

from __future__ import annotations

import pytest
import torch

from acclimate.fields.recommendation.models.counting import Cost, cost_of
from acclimate.fields.recommendation.models.registry import build

TABLE = {  # millions for Criteo, Avazu, KDD12 and Frappe
    "fnn": (1.30, 1.05, 0.84, 0.76),
    "deepfm": (1.30, 1.05, 0.84, 0.76),
    "ipnn": (2.06, 1.34, 0.89, 0.80),
    "dcn": (1.30, 1.05, 0.84, 0.76),
    "dcnv2": (2.47, 1.49, 0.93, 0.79),
    "finalmlp": (2.66, 2.16, 1.74, 1.58),
    "wukong": (3.75, 3.54, 3.36, 2.98),
    "rankmixer": (2.93, 1.41, 0.80, 0.77),
}

SHAPES = ((39, 16), (24, 16), (11, 16), (10, 10))
"""Fields and width of the columns; RankMixer is as wide as there are fields."""


@pytest.mark.parametrize("name", TABLE)
def test_costs_are_those_of_the_table(name: str) -> None:
    for (fields, width), expected in zip(SHAPES, TABLE[name], strict=True):
        used = fields if name == "rankmixer" else width
        with torch.device("meta"):
            model = build(name, [100] * fields, width=used)
        cost = cost_of(model)
        assert cost.multiply_adds / 1e6 == pytest.approx(expected, rel=0.01)
        assert cost.parameters / 1e6 == pytest.approx(expected, rel=0.03)
        assert cost.embedding_parameters == 100 * fields * used
        assert cost.embedding_bytes == 4 * fields * used


def test_fm_is_next_to_nothing() -> None:
    found = [cost_of(build("fm", [100] * fields, width=width)) for fields, width in SHAPES]
    assert [round(cost.multiply_adds / 1e6, 3) for cost in found[:2]] == [0.001, 0.001]
    assert all(0 < cost.multiply_adds < 500 for cost in found[2:])
    assert [cost.parameters for cost in found] == [0] * 4


def test_costs_by_hand() -> None:
    dcn = build("dcn", [2, 3], width=2, mlp_dims=[8], cross=2)
    # 4 x 8 of the MLP, 2 x 4 of the cross network, 12 of the output
    assert cost_of(dcn) == Cost(32 + 8 + 12, 40 + 2 * 8 + 12, 10, 16)
    mixer = build("rankmixer", [2, 3], width=4, n_layers=1, expansion=3, mlp_dims=[8])
    # two tokens of 4 x 12 and 12 x 4, MLP of 8 x 8 and 8 x 1
    parameters = 2 * (4 * 12 + 12 + 12 * 4 + 4) + 2 * 8 + 72 + 9
    assert cost_of(mixer) == Cost(2 * 2 * 48 + 64 + 8, parameters, 20, 32)
    # DeepFM adds to FNN the 4 numbers, their squares and 2 squares of sums
    with_fm, without = (build(name, [2, 3], width=2, mlp_dims=[8]) for name in ("deepfm", "fnn"))
    assert cost_of(with_fm).multiply_adds - cost_of(without).multiply_adds == 4 + 4 + 2


def test_counting_neither_runs_nor_changes_the_model() -> None:
    model = build("fnn", [2, 3], width=2, mlp_dims=[8], bn=True, dropout=0.5).double()
    model.mlp.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    seen: list[int] = []
    model.register_forward_hook(lambda *_: seen.append(1))
    assert cost_of(model).embedding_bytes == 2 * 2 * 8
    assert model.training and not model.mlp.training and not seen
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
