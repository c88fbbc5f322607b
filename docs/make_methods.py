"""Write docs/methods.md from the cards and docstrings of the registered methods: `python docs/make_methods.py`."""

from __future__ import annotations

import dataclasses
from inspect import cleandoc
from pathlib import Path

import acclimate
from acclimate.core.config import in_brief
from acclimate.core.method import Method, methods
from acclimate.core.normalization import normalizations

__all__ = ["page", "pages"]


def page(name: str, cls: type[Method]) -> str:
    """One method's section."""
    cost, card = cls().cost(), cls.card
    copies = ", ".join(f"{kind} {count:g}x" for kind, count in cost.copies.items() if count) or "none"
    extra = [f"{cost.per_tensor} numbers per tensor"] * bool(cost.per_tensor)
    extra += [f"{cost.per_class} number per class"] * bool(cost.per_class)
    extra += [f"{count} x {unit}" for unit, count in cost.memory.items()]
    extra += [f"{cost.numbers} numbers"] * bool(cost.numbers)
    passes = f"{cost.forwards:g} forward, {cost.backwards:g} backward"
    passes += f", and at most {cost.selected:g} forward over chosen or kept rows" * bool(cost.selected)
    rows = {
        "paper": card.paper,
        "needs": ", ".join(sorted(card.needs)) or "nothing",
        f"passes per {cost.each}": passes,
        "work, at most": f"{cost.bound:g} F" + " for each sample" * (cost.each == "sample"),
        "state, in copies of what adapts": ", ".join([copies, *extra]),
        "batch of one": card.batch_of_one,
        "fails when": card.fails_when,
        "presets": ", ".join(f"`{name}:{preset}`" for preset in cls.presets) or "none",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    fields = "\n".join(
        f"| `{field.name}` | `{_default(getattr(cls(), field.name))}` |" for field in dataclasses.fields(cls)
    )
    text = cleandoc(cls.__doc__ or "")
    return f"## {name}\n\n{text}\n\n| | |\n|---|---|\n{table}\n\n| setting | default |\n|---|---|\n{fields}\n"


def _default(value: object) -> str:
    return in_brief(value) if dataclasses.is_dataclass(value) else getattr(value, "__name__", repr(value))


def pages() -> dict[str, str]:
    """Every method's section by name."""
    return {name: page(name, cls) for name, cls in methods.classes().items()}


def main() -> None:
    head = (
        "# Methods\n\nGenerated from the cards and docstrings by `make docs`. `acclimate methods` shows the same in a "
        "terminal. F is the work of one inference forward of the batch.\n\n| method | what it does to a stream | needs | passes | work |\n|---|---|---|---|---|\n"
    )
    for name, card in acclimate.list_methods().items():
        cost = methods.classes()[name]().cost()
        needs = ", ".join(sorted(card.needs)) or "nothing"
        head += f"| [{name}](#{name}) | {card.summary} | {needs} | {cost.forwards:g} + {cost.backwards:g} | {cost.bound:g} F |\n"
    tail = "# Normalisations\n\nFor any method: `acclimate.adapt(net, method, normalization=...)`.\n\n"
    for name, cls in normalizations.classes().items():
        tail += f"## normalization: {name}\n\n{cleandoc(cls.__doc__ or '')}\n\n"
    text = "\n".join([head, *pages().values(), tail.rstrip() + "\n"])
    Path(__file__).with_name("methods.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
