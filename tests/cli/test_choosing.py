"""Settings as text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from acclimate.cli.choosing import choose_methods, choose_model, parse_value
from acclimate.cli.threads import choose_threads
from acclimate.methods.palm import PALM
from acclimate.models import AggregatedResidualNet
from acclimate.models.threads import one_thread


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("1e-4", float, 1e-4),
        ("none", float | None, None),
        ("0.5", float | None, 0.5),
        ("no", bool, False),
        ("On", bool, True),
        ("12", int | str, 12),
        ("sgd", int | str, "sgd"),
        ("mean", Literal["sum", "mean"], "mean"),
        ("1, 2", tuple[int, ...], (1, 2)),
    ],
)
def test_a_text_becomes_a_value_of_the_field(text: str, hint: object, value: object) -> None:
    parsed = parse_value(text, hint)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [("x", int, "a whole number"), ("2.5", int | None, "none"), ("median", Literal["sum", "mean"], "'sum' or 'mean'")],
)
def test_what_is_no_value_is_told(text: str, hint: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_value(text, hint)


def test_settings_apply_to_one_label_only() -> None:
    chosen = choose_methods(["palm", "palm:stable"], ["palm:stable.alpha=0.25", "palm.threshold_quantile=0.5"])
    assert chosen["palm"].alpha == PALM().alpha != 0.25 and chosen["palm"].threshold_quantile == 0.5
    assert chosen["palm:stable"].alpha == 0.25 and chosen["palm:stable"].threshold_quantile is None


def test_threads_are_chosen_and_given_back() -> None:
    before = torch.get_num_threads()
    try:
        chosen = choose_threads(torch.nn.Linear(4, 2), torch.rand(8, 4))
        assert chosen == torch.get_num_threads() <= before
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == chosen
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("dataset", "network"), [("cifar100c", "resnext-29"), ("cifar100", "resnext-29"), ("imagenetc", "resnet-50")]
)
def test_data_sets_of_published_networks_ask_for_their_weights(dataset: str, network: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{dataset} is {network}.*--weights FILE"):
        choose_model(None, None, dataset)
    with pytest.raises(FileNotFoundError, match="mine"):
        choose_model(None, str(tmp_path / "mine.pt"), dataset)


def test_the_network_of_a_data_set_takes_the_weights_that_are_given(tmp_path: Path) -> None:
    net = AggregatedResidualNet()
    with torch.no_grad():
        for number, value in enumerate(net.parameters()):
            value.fill_(number / 1000)
    torch.save(net.state_dict(), tmp_path / "mine.pt")
    name, found = choose_model(None, str(tmp_path / "mine.pt"), "cifar100c", classes=100)
    assert name == "resnext-29"
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.parameters(), net.parameters(), strict=True))


def test_a_data_set_without_a_usual_model_asks_for_one() -> None:
    with pytest.raises(ValueError, match=r"no source model for the data set 'folder'.*your own"):
        choose_model(None, None, "folder")


def test_an_error_about_a_named_model_speaks_of_it_alone() -> None:
    with pytest.raises(ValueError, match=r"^The model 'resnet-50' brings no weights"):
        choose_model("resnet-50", None, "cifar10")
