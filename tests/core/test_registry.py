"""Named families: registration, look-up, close matches, duplicates, building from every kind of spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from acclimate.core.config import Configured
from acclimate.core.method import NEEDS, Card, list_methods, methods
from acclimate.core.registry import Registry
from acclimate.methods.palm import PALM
from acclimate.methods.tent import Tent
from acclimate.normalization.ema import EmaStatistics


@pytest.fixture
def registry() -> Registry[Configured]:
    return Registry("thing", "acclimate.parts", Configured)


@dataclass(frozen=True, kw_only=True)
class Thing(Configured):
    presets: ClassVar[dict[str, dict[str, Any]]] = {"big": {"size": 9}}
    size: int = 1


def test_registers_and_builds(registry: Registry[Configured]) -> None:
    registry.register("thing")(Thing)
    assert registry.build("thing") == Thing()
    assert registry.build("thing:big") == Thing(size=9)
    assert registry.build({"name": "thing", "size": 4}) == Thing(size=4)
    mine = Thing(size=3)
    assert registry.build(mine) is mine


def test_unknown_names_offer_close_ones(registry: Registry[Configured]) -> None:
    registry.register("thing")(Thing)
    with pytest.raises(ValueError, match="Did you mean thing"):
        registry.build("thign")
    with pytest.raises(ValueError, match=r"There are: thing"):
        registry.build("zzz")
    with pytest.raises(ValueError, match=r"no preset 'small'.*big"):
        registry.build("thing:small")


def test_a_name_is_taken_once(registry: Registry[Configured]) -> None:
    registry.register("thing")(Thing)
    registry.register("thing")(Thing)

    @dataclass(frozen=True, kw_only=True)
    class Other(Configured): ...

    with pytest.raises(ValueError, match=r"taken by .*Thing"):
        registry.register("thing")(Other)
    assert registry.classes()["thing"] is Thing


def test_two_packages_may_not_take_one_name_with_classes_of_one_name(registry: Registry[Configured]) -> None:
    twins = [type("Mine", (Configured,), {"__module__": module, "__qualname__": "Mine"}) for module in ("one", "two")]
    registry.register("mine")(twins[0])
    with pytest.raises(ValueError, match=r"taken by one\.Mine"):
        registry.register("mine")(twins[1])


def test_registered_classes_know_their_names() -> None:
    for name, cls in methods.classes().items():
        assert cls.name == name and cls.card.summary and cls.card.fails_when
        assert cls.__doc__ and name not in ("", None)
        for preset in cls.presets:
            assert isinstance(methods.build(f"{name}:{preset}"), cls)
    assert list(methods.classes()) == sorted(methods.classes())


@pytest.mark.parametrize("spec", [{"size": 4}, {"name": "thing", "weight": 1}, 3, None, Thing, ["thing"]])
def test_specs_that_make_no_sense(registry: Registry[Configured], spec: Any) -> None:
    registry.register("thing")(Thing)
    with pytest.raises(ValueError, match=r"thing|weight"):
        registry.build(spec)


def test_filters() -> None:
    every = list_methods()
    for need in NEEDS:
        word = f"needs_{need.replace(' ', '_')}"
        having, lacking = list_methods(**{word: True}), list_methods(**{word: False})
        assert {**having, **lacking}.keys() == every.keys() and not having.keys() & lacking.keys()
        assert all(need in card.needs for card in having.values())
    with pytest.raises(ValueError, match="needs_backward"):
        list_methods(backward=True)
    with pytest.raises(ValueError, match="unknown needs"):
        Card(summary="", paper="", fails_when="", needs=frozenset({"luck"}))


@pytest.mark.parametrize(
    "method",
    [Tent(), Tent(learning_rate=0.1 + 0.2, steps=3, normalization=EmaStatistics(momentum=0.3)), PALM.preset("paper")],
)
def test_configurations_survive_json(method: Configured) -> None:
    import json

    again = methods.build(json.loads(json.dumps(method.config())))
    assert again == method and again.config() == method.config()


def test_configurations_with_objects_ask_for_them() -> None:
    import functools

    import torch

    for optimizer in (torch.optim.SGD, functools.partial(torch.optim.SGD, momentum=0.5), lambda p, lr: None):
        config = Tent(optimizer=optimizer).config()
        assert "custom" in config["optimizer"]
        with pytest.raises(ValueError, match="optimizer"):
            methods.build(config)


def test_names_of_applications_are_found_and_not_listed() -> None:
    assert "cosmic" not in methods.classes() and "cosmic" not in list_methods()
    assert methods.build("cosmic:without-auxiliary").config()["name"] == "cosmic"
    with pytest.raises(ValueError, match="Did you mean cosmic"):
        methods.build("cosmc")
