"""The rankers against their formulas, written out row by row in float64 numpy, and against numbers by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from acclimate.fields.recommendation.models.architectures.finalmlp import FinalMLP
from acclimate.fields.recommendation.models.architectures.wukong import WukongLayer
from acclimate.fields.recommendation.models.parts.cross import MatrixCross, VectorCross
from acclimate.fields.recommendation.models.parts.pairs import PairProducts, factorised
from acclimate.fields.recommendation.models.parts.tokens import PerToken, mix
from acclimate.fields.recommendation.models.registry import build
from acclimate.models.initial import private_init

Floats = NDArray[np.float64]
Weights = dict[str, Floats]

SIZES = (4, 2, 5)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mlp(weights: Weights, prefix: str, x: Floats) -> Floats:
    layer = 0
    while f"{prefix}.linears.{layer}.weight" in weights:
        x = weights[f"{prefix}.linears.{layer}.weight"] @ x + weights[f"{prefix}.linears.{layer}.bias"]
        norm = f"{prefix}.norms.{layer}"
        if f"{norm}.running_mean" in weights:
            scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-5)
            x = (x - weights[f"{norm}.running_mean"]) * scale + weights[f"{norm}.bias"]
        x = np.maximum(x, 0)
        layer += 1
    if f"{prefix}.output.weight" in weights:
        x = weights[f"{prefix}.output.weight"] @ x + weights[f"{prefix}.output.bias"]
    return x


def layer_norm(weights: Weights, prefix: str, x: Floats) -> Floats:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weights[f"{prefix}.weight"] + weights[f"{prefix}.bias"]


def pairs(e: Floats) -> Floats:
    return np.array([e[i] @ e[j] for i in range(len(e)) for j in range(i + 1, len(e))])


def fm(_: Weights, e: Floats) -> float:
    return pairs(e).sum()


def fnn(w: Weights, e: Floats) -> float:
    return mlp(w, "mlp", e.ravel())[0]


def deepfm(w: Weights, e: Floats) -> float:
    return fnn(w, e) + fm(w, e)


def ipnn(w: Weights, e: Floats) -> float:
    return mlp(w, "mlp", np.concatenate([e.ravel(), pairs(e)]))[0]


def crossed(w: Weights, e: Floats, step: Callable[[str, Floats, Floats], Floats]) -> float:
    first = x = e.ravel()
    for layer in range(3):
        x = step(f"crosses.{layer}", first, x)
    return (w["output.weight"] @ np.concatenate([x, mlp(w, "mlp", first)]))[0]


def dcn(w: Weights, e: Floats) -> float:
    return crossed(w, e, lambda at, first, x: first * (w[f"{at}.weight.weight"][0] @ x) + w[f"{at}.bias"] + x)


def dcnv2(w: Weights, e: Floats) -> float:
    return crossed(w, e, lambda at, first, x: first * (w[f"{at}.linear.weight"] @ x + w[f"{at}.linear.bias"]) + x)


def finalmlp(w: Weights, e: Floats) -> float:
    a, b = mlp(w, "first", e.ravel()), mlp(w, "second", e.ravel())
    alone = w["first_output.weight"][0] @ a + w["first_output.bias"][0]
    alone += w["second_output.weight"][0] @ b + w["second_output.bias"][0]
    size = w["bilinear"].shape[1]
    for head, matrix in enumerate(w["bilinear"]):
        piece = slice(head * size, (head + 1) * size)
        alone += a[piece] @ matrix @ b[piece]
    return alone


def wukong(w: Weights, e: Floats) -> float:
    x = e
    for layer in range(2):
        at = f"layers.{layer}"
        fmb = layer_norm(w, f"{at}.fm_norm", (x @ x.T @ w[f"{at}.project"]).ravel())
        fmb = mlp(w, f"{at}.fm_mlp", fmb).reshape(-1, x.shape[1])
        joined = np.concatenate([fmb, w[f"{at}.compress"].T @ x])
        kept = w[f"{at}.residual"].T @ x if len(joined) != len(x) else x
        x = layer_norm(w, f"{at}.norm", joined + kept)
    return mlp(w, "mlp", x.ravel())[0]


def mixed(x: Floats) -> Floats:
    tokens, width = x.shape
    piece = width // tokens
    out = np.empty_like(x)
    for head in range(tokens):
        out[head] = np.concatenate([x[token, head * piece : (head + 1) * piece] for token in range(tokens)])
    return out


def gelu(x: Floats) -> Floats:
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])


def rankmixer(w: Weights, e: Floats) -> float:
    x = e
    if "tokens.weight" in w:
        x = (w["tokens.weight"] @ e.ravel() + w["tokens.bias"]).reshape(-1, e.shape[1])
    for layer in range(2):
        at = f"layers.{layer}"
        x = layer_norm(w, f"{at}.mixed_norm", mixed(x) + x)
        changed = np.empty_like(x)
        for token, row in enumerate(x):
            inward, outward = w[f"{at}.networks.inward"][token], w[f"{at}.networks.outward"][token]
            hidden = gelu(row @ inward + w[f"{at}.networks.inward_bias"][token, 0])
            changed[token] = hidden @ outward + w[f"{at}.networks.outward_bias"][token, 0]
        x = layer_norm(w, f"{at}.norm", x + changed)
    return mlp(w, "mlp", x.ravel())[0]


WUKONG = {"n_layers": 2, "n_lcb": 2, "rank": 4, "fm_mlp": (6,), "mlp_dims": (8,)}


@pytest.mark.parametrize(
    ("name", "oracle", "options"),
    [
        ("fm", fm, {}),
        ("fnn", fnn, {"mlp_dims": (8, 5)}),
        ("fnn", fnn, {"mlp_dims": (8, 5), "bn": True}),
        ("deepfm", deepfm, {"mlp_dims": (8, 5)}),
        ("ipnn", ipnn, {"mlp_dims": (8, 5)}),
        ("dcn", dcn, {"mlp_dims": (8, 5)}),
        ("dcnv2", dcnv2, {"mlp_dims": (8, 5)}),
        ("finalmlp", finalmlp, {"mlp_dims": (8, 6)}),
        ("finalmlp", finalmlp, {"mlp_dims": (8, 6), "heads": 3}),
        ("wukong", wukong, {**WUKONG, "n_fmb": 1}),  # three rows in, three out
        ("wukong", wukong, {**WUKONG, "n_fmb": 3}),
        ("rankmixer", rankmixer, {"n_layers": 2, "mlp_dims": (8,)}),
        ("rankmixer", rankmixer, {"n_layers": 2, "mlp_dims": (8,), "tokens": 2, "expansion": 1}),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_the_logit_is_the_formula(name: str, oracle: Callable[[Weights, Floats], float], options: Any) -> None:
    model = build(name, SIZES, width=6, **options).double().eval()
    with torch.no_grad():
        for number, value in enumerate(model.state_dict().values()):
            if value.is_floating_point():  # no bias at nought, no variance at one
                value.copy_(drawn(*value.shape, seed=number).abs() * 0.5 + drawn(*value.shape, seed=99) * 0.2)
        for key, value in model.named_buffers():
            if key.endswith("running_var"):
                value.abs_()
        for value in model.parameters():
            value -= value.mean() * 0.8
    ids = torch.tensor([[0, 4, 6], [3, 5, 10], [1, 4, 8], [2, 5, 7], [0, 5, 9]])
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    expected = [oracle(weights, weights["embedding.weight"][row]) for row in ids.numpy()]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(model(ids).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_factorised_by_hand() -> None:
    toy = torch.tensor([[[1.0, 2.0], [3.0, -4.0]], [[0.5, 0.0], [2.0, 9.0]]], dtype=torch.float64)
    assert factorised(toy).tolist() == [1 * 3 - 2 * 4, 1.0]


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 1000))
def test_factorised_is_the_sum_over_pairs(fields: int, width: int, seed: int) -> None:
    e = drawn(3, fields, width, seed=seed)
    np.testing.assert_allclose(factorised(e), [pairs(row).sum() for row in e.numpy()], atol=1e-12)


def test_pairs_come_row_by_row() -> None:
    primes = torch.tensor([[2.0, 3, 5, 7]])[..., None]
    assert PairProducts(4)(primes).tolist() == [[6, 10, 14, 15, 21, 35]]
    assert PairProducts(1)(primes[:, :1]).shape == (1, 0)


def test_one_vector_cross_by_hand() -> None:
    layer = VectorCross(2)
    assert layer.bias.tolist() == [0, 0]
    with torch.no_grad():
        layer.weight.weight.copy_(torch.tensor([[3.0, 4.0]]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    # w . x = 3 + 8 = 11
    assert layer(torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 2.0]])).tolist() == [[12.5, -9.5]]


def test_one_matrix_cross_by_hand() -> None:
    layer = MatrixCross(2)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.linear.bias.copy_(torch.tensor([1.0, -1.0]))
    # W x + b = (6, 10)
    assert layer(torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 2.0]])).tolist() == [[7, -8]]


def test_an_identity_makes_finalmlp_an_inner_product() -> None:
    model = build("finalmlp", SIZES, width=4, mlp_dims=(8, 6)).double().eval()
    assert isinstance(model, FinalMLP)
    with torch.no_grad():
        model.bilinear.copy_(torch.eye(6))
        for output in (model.first_output, model.second_output):
            output.weight.zero_()
            output.bias.fill_(0.25)
    e = drawn(5, 3, 4)
    towers = model.first(e.flatten(1)), model.second(e.flatten(1))
    torch.testing.assert_close(model.score(e), (towers[0] * towers[1]).sum(1) + 0.5)


def test_wukong_interactions_are_all_inner_products_compressed() -> None:
    layer = WukongLayer(5, 3, n_lcb=2, n_fmb=2, rank=4, fm_mlp=(6,), dropout=0).double()
    x = drawn(2, 5, 3)
    expected = [row @ row.T @ layer.project.detach().numpy() for row in x.numpy()]
    np.testing.assert_allclose(layer.interactions(x).detach(), expected, atol=1e-12)


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 1000))
def test_mixing_exchanges_pieces_and_undoes_itself(tokens: int, piece: int, seed: int) -> None:
    x = drawn(2, tokens, tokens * piece, seed=seed)
    once = mix(x)
    np.testing.assert_array_equal(once.numpy(), [mixed(row) for row in x.numpy()])
    assert torch.equal(once.flatten(1).sort().values, x.flatten(1).sort().values)
    assert torch.equal(mix(once), x)
    if piece == 1:
        assert torch.equal(once, x.transpose(1, 2))


def test_each_token_has_a_network_of_its_own() -> None:
    with private_init(0):
        networks = PerToken(3, 4, 8).double()
    x = drawn(1, 1, 4).expand(2, 3, 4).clone()
    before = networks(x)
    assert not torch.allclose(before[:, 0], before[:, 1]) and not torch.allclose(before[:, 1], before[:, 2])
    moved = x.clone()
    moved[0, 1] += 1
    changed = (networks(moved) != before).any(2)
    assert changed.tolist() == [[False, True, False], [False, False, False]]
    for weight in networks.parameters():
        with torch.no_grad():
            weight[2] += 0.1
        changed = (networks(x) != before).any(2)
        assert changed.tolist() == [[False, False, True]] * 2
        with torch.no_grad():
            weight[2] -= 0.1


def test_networks_of_tokens_are_drawn_as_linear_layers() -> None:
    with private_init(0):
        networks = PerToken(16, 64, 100)
    for weight, inputs in ((networks.inward, 64), (networks.outward, 100)):
        assert 0.99 * inputs**-0.5 < weight.abs().max() <= inputs**-0.5
    assert 0.9 * 0.1 < networks.outward_bias.abs().max() <= 0.1


def test_the_bilinear_form_is_drawn_xavier_normal_for_each_head() -> None:
    for heads in (1, 4):
        model = build("finalmlp", SIZES, heads=heads)
        assert isinstance(model, FinalMLP)
        assert model.bilinear.shape == (heads, 256 // heads, 256 // heads)
        assert model.bilinear.std().item() == pytest.approx((2 / (2 * 256 / heads)) ** 0.5, rel=0.03)


def test_wukong_weights_are_drawn_by_their_second_dimension() -> None:
    with private_init(0):
        layer = WukongLayer(200, 4, n_lcb=50, n_fmb=10, rank=24, fm_mlp=(8,), dropout=0)
    for weight, inputs in ((layer.compress, 50), (layer.project, 24)):
        bound = (6 / inputs) ** 0.5
        assert 0.99 * bound < weight.abs().max() <= bound
    assert layer.residual is not None
    assert layer.residual.std().item() == pytest.approx((2 / 60) ** 0.5, rel=0.03)


def test_with_the_norm_of_the_reference_a_row_depends_on_its_neighbours() -> None:
    """Why `norm="tensor"` is for parity alone."""
    ids = torch.tensor([[0, 4, 6], [3, 5, 10], [1, 4, 8]])
    whole = build("rankmixer", SIZES, preset="small", norm="tensor").double().eval()
    assert not torch.allclose(whole(ids)[:1], whole(ids[:1]), rtol=1e-6)
    x = drawn(3, 2, 4)
    normal = whole.layers[0].norm(x)
    np.testing.assert_allclose(normal, (x.numpy() - x.numpy().mean()) / np.sqrt(x.numpy().var() + 1e-5), rtol=1e-12)
