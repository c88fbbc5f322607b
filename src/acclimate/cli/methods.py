"""`acclimate methods`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from acclimate.cli.command import Command, option

if TYPE_CHECKING:
    from rich.console import Console

    from acclimate.core.method import Method

__all__ = ["Methods"]


@dataclass(frozen=True, kw_only=True)
class Methods(Command):
    """List the methods and what they need, or show the page of one.

    acclimate methods

    acclimate methods --without backward

    acclimate methods --needs norm

    acclimate methods palm

    Needs are: backward (a backward pass), batch norm, norm (any normalisation layer), convolution or norm,
    residual blocks, linear head, augmentation, source images (to measure the source before adapting; acclimate run
    takes them from the training split). Write them with dashes: batch-norm.
    """

    name: Annotated[str | None, tyro.conf.Positional, option("NAME")] = None
    """The method to show in full."""
    needs: Annotated[tuple[str, ...], option("NEED...")] = ()
    """Only methods that need all of these."""
    without: Annotated[tuple[str, ...], option("NEED...")] = ()
    """Only methods that need none of these."""

    def execute(self) -> None:
        from acclimate.cli.console import console

        if self.name is None:
            self._list(console())
            return
        if self.needs or self.without:
            raise ValueError("--needs and --without choose from the list; leave the name out, or leave them out.")
        self._page(console(), self.name)

    def _filters(self) -> dict[str, bool]:
        from acclimate.core.method import NEEDS

        words = {need.replace(" ", "-"): f"needs_{need.replace(' ', '_')}" for need in NEEDS}
        filters: dict[str, bool] = {}
        for word, wanted in [*((w, True) for w in self.needs), *((w, False) for w in self.without)]:
            key = word.strip().replace(" ", "-").replace("_", "-")
            if key not in words:
                raise ValueError(f"there is no need {word!r}. The needs are: {', '.join(words)}.")
            filters[words[key]] = wanted
        return filters

    def _list(self, out: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        from acclimate.core.method import list_methods, methods

        table = Table(box=None, padding=(0, 2, 1, 0), header_style="bold")
        table.add_column("method", no_wrap=True)
        table.add_column("passes", no_wrap=True)
        table.add_column("needs", min_width=10, max_width=16)
        table.add_column("batch of one", min_width=10, max_width=16)
        table.add_column("what it does", ratio=1)
        for name, card in list_methods(**self._filters()).items():
            cls = methods.classes()[name]
            about = Text(card.summary)
            about.append(f"\n{card.paper}", style="dim")
            if cls.presets:
                about.append(f"\npresets: {', '.join(cls.presets)}", style="dim")
            needs = ", ".join(sorted(card.needs)) or "nothing"
            table.add_row(Text(name, style="bold"), passes(methods.build(name)), needs, card.batch_of_one, about)
        if not table.row_count:
            out.print("No method fits. Drop a filter: acclimate methods.")
            return
        out.print(table)
        out.print(
            "Passes are forwards + backwards over a batch. acclimate methods NAME shows one in full.", style="dim"
        )

    def _page(self, out: Console, name: str) -> None:
        from rich.text import Text

        from acclimate.cli.choosing import settable
        from acclimate.cli.pages import show_about, show_settings
        from acclimate.core.method import methods

        method = methods.build(name.partition(":")[0])
        card = type(method).card
        show_about(out, method, card.summary)
        facts = {
            "passes": f"{passes(method)} (forwards + backwards)",
            "needs": ", ".join(sorted(card.needs)) or "nothing",
            "batch of one": card.batch_of_one,
            "fails when": card.fails_when,
            "paper": card.paper,
        }
        for fact, value in facts.items():
            out.print(Text(f"{fact:<14}", style="bold"), Text(value), sep="")
        out.print()
        show_settings(out, method, settable(type(method)))


def passes(method: Method) -> str:
    """Forwards + backwards over one batch, as in `2 + 1`."""
    cost = method.cost()
    return f"{cost.forwards * method.steps:.3g} + {cost.backwards * method.steps:.3g}"
