"""What every ranker promises, whichever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from acclimate.fields.recommendation.models.counting import cost_of
from acclimate.fields.recommendation.models.ranker import Ranker
from acclimate.fields.recommendation.models.registry import MODELS, build
from acclimate.models.files import read_tensors, write_tensors

SIZES = (3, 1, 7, 4)

OTHERWISE: dict[str, dict[str, Any]] = {
    "fm": {},
    "fnn": {"mlp_dims": [8], "bn": True},
    "deepfm": {"mlp_dims": [8, 8], "dropout": 0.5},
    "ipnn": {"mlp_dims": [8, 16]},
    "dcn": {"mlp_dims": [8], "cross": 1},
    "dcnv2": {"mlp_dims": [8], "cross": 2},
    "finalmlp": {"mlp_dims": [16, 12], "heads": 3},
    "wukong": {"mlp_dims": [8], "n_layers": 2, "n_lcb": 2, "n_fmb": 3, "rank": 5, "fm_mlp": [8]},
    "rankmixer": {"mlp_dims": [8], "n_layers": 1, "expansion": 1.5, "tokens": 2, "norm": "token"},
}
"""Options of each ranker that are not its defaults; a new ranker adds its line."""

every = pytest.mark.parametrize("name", OTHERWISE)


def ids(rows: int, seed: int = 0) -> Tensor:
    drawn = torch.rand(rows, len(SIZES), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    starts = torch.tensor([0, 3, 4, 11])
    return (drawn * torch.tensor(SIZES)).long() + starts


def made(name: str, **more: Any) -> Ranker:
    return build(name, SIZES, preset="small", **more)


def test_every_ranker_is_covered() -> None:
    assert set(OTHERWISE) == set(MODELS)


@every
def test_one_logit_a_row_whatever_the_batch(name: str) -> None:
    for model in (made(name).eval(), made(name, **OTHERWISE[name]).eval()):
        for rows in (0, 1, 5):
            logits = model(ids(rows))
            assert logits.shape == (rows,) and logits.dtype == torch.float32 and logits.isfinite().all()


@every
def test_forward_is_the_score_of_the_embedding(name: str) -> None:
    model, rows = made(name).eval(), ids(6)
    table = model.embedding.weight
    assert table.shape == (sum(SIZES), model.width)
    assert torch.equal(model(rows), model.score(table[rows.flatten()].view(6, len(SIZES), -1)))


@every
def test_a_row_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    for options in ({}, OTHERWISE[name]):
        model, rows = made(name, **options).double().eval(), ids(32)
        together = model(rows)
        alone = torch.cat([model(row[None]) for row in rows])
        turned = model(rows.flip(0)).flip(0)
        assert together.unique().numel() > 3
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-12)
        torch.testing.assert_close(turned, together, rtol=0, atol=1e-12)


@every
def test_the_seed_alone_decides_about_the_weights(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = made(name, seed=5)
    cost_of(first)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    again, other = made(name, seed=5).state_dict(), made(name, seed=6).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.state_dict().items())
    assert not torch.equal(first.embedding.weight, other["embedding.weight"])


@every
def test_the_embedding_is_xavier_uniform(name: str) -> None:
    table = build(name, [500] * 4, preset="small", width=8).embedding.weight
    bound = (6 / (2000 + 8)) ** 0.5
    assert 0.99 * bound < table.abs().max() <= bound
    assert table.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@every
def test_options_are_json_and_build_the_same_again(name: str) -> None:
    for options in ({}, OTHERWISE[name]):
        model = made(name, seed=3, **options).eval()
        assert type(model).name == name and model.sizes == SIZES
        written = json.loads(json.dumps(model.options()))
        assert {key: written[key] for key in options} == options
        again = build(name, SIZES, width=model.width, seed=3, **written).eval()
        assert again.options() == model.options()
        assert torch.equal(again(ids(4)), model(ids(4)))


@every
def test_the_state_is_tensors_that_a_file_holds(name: str, tmp_path: Any) -> None:
    model, other = made(name, seed=1).eval(), made(name, seed=2).eval()
    assert not torch.equal(model(ids(9)), other(ids(9)))
    write_tensors(tmp_path / "state.safetensors", model.state_dict(), {})
    other.load_state_dict(read_tensors(tmp_path / "state.safetensors")[0])
    assert torch.equal(model(ids(9)), other(ids(9)))


@every
def test_every_weight_learns(name: str) -> None:
    model = made(name, **OTHERWISE[name])
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05
    model(ids(64)).square().sum().backward()
    for key, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, key


@every
def test_dropout_is_for_training_alone(name: str) -> None:
    model, rows = made(name), ids(16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = not torch.equal(model(rows), model(rows))
    assert drawn == (name != "fm")
    assert torch.equal(model.eval()(rows), model(rows))


@every
def test_the_exported_model_is_the_eager_one_at_any_batch(name: str) -> None:
    for options in ({}, OTHERWISE[name]):
        model = made(name, **options).eval()
        shapes = {"ids": {0: torch.export.Dim("rows", min=1, max=4096)}}
        exported = torch.export.export(model, (ids(7),), dynamic_shapes=shapes).module()
        for rows in (2, 7, 33):
            torch.testing.assert_close(exported(ids(rows, 1)), model(ids(rows, 1)), rtol=0, atol=1e-6)


@every
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), r"the ids are int64 \[2, 3\]; expected int64 \[B, 4\]"),
        (torch.zeros(4, dtype=torch.int64), r"the ids are int64 \[4\]"),
        (torch.zeros(2, 4, dtype=torch.int32), r"the ids are int32 \[2, 4\]"),
        (torch.zeros(2, 4), r"the ids are float32"),
        (torch.tensor([[0, 3, 4, 11], [0, 3, 11, 11]]), "row 1, field 2 has the id 11; expected 4 to 10"),
        (torch.tensor([[0, 3, 4, 15]]), "row 0, field 3 has the id 15; expected 11 to 14"),
        (torch.tensor([[-1, 3, 4, 11]]), "row 0, field 0 has the id -1; expected 0 to 2"),
        (torch.tensor([[0, 2, 4, 11]]), "row 0, field 1 has the id 2; expected 3 to 3"),
    ],
)
def test_wrong_ids_are_named(name: str, wrong: Tensor, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        made(name).eval()(wrong)


@every
def test_the_first_and_the_last_id_of_each_field_are_right(name: str) -> None:
    rows = torch.tensor([[0, 3, 4, 11], [2, 3, 10, 14]])
    assert made(name).eval()(rows).shape == (2,)


@every
def test_ids_elsewhere_than_on_the_cpu_are_not_looked_at(name: str) -> None:
    model = made(name).eval().to("meta")
    assert model(torch.empty(3, 4, dtype=torch.int64, device="meta")).shape == (3,)
    with pytest.raises(ValueError, match="the ids are on cpu, the model on meta"):
        model(ids(3))
