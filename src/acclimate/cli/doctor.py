"""`acclimate doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from acclimate.cli.command import Command, option
from acclimate.experiment.sizes import readable_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import nn

    from acclimate.experiment.checkup import Checkup

__all__ = ["Doctor"]


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Look at a model: what is in it, what each method would adapt, what that costs, or why it cannot.

    acclimate doctor

    acclimate doctor --model digits-resnet --memory

    acclimate doctor --model my_model.py:build --weights w.safetensors --input-size 3 224 224 --memory

    Without a model it tells the versions and the machine. With --memory each method takes a step on random
    images, to measure what its backward pass keeps, with what PyTorch would keep beside it.
    """

    model: Annotated[str | None, option("NAME|module:function|file.py:function")] = None
    """The model to look at."""
    weights: Annotated[str | None, option("FILE")] = None
    """Weights to load into it."""
    batch: Annotated[int, option("N")] = 64
    """Images in a batch, for --memory."""
    input_size: Annotated[tuple[int, int, int], option("C H W")] = (3, 32, 32)
    """Channels, height and width of an image."""
    memory: Annotated[bool, option()] = False
    """Measure memory by one step of each method."""
    policy: Annotated[str | None, option("NAME")] = None
    """With --memory, how backward keeps what it needs, such as exact or quantized:4-bit; else each method's way."""
    threads: Annotated[int | None, option("N")] = None
    """Threads to compute with; torch decides by default."""

    def execute(self) -> None:
        from acclimate.cli.choosing import choose_model
        from acclimate.cli.console import console
        from acclimate.cli.progress import Bars
        from acclimate.cli.threads import use_threads

        if self.batch < 1 or min(self.input_size) < 1:
            raise ValueError(f"--batch {self.batch} and --input-size {self.input_size}: expected 1 or more of each.")
        self._check_memory()
        if self.threads is not None:
            use_threads(self.threads)
        out = console()
        if self.model is None:
            if self.weights:
                raise ValueError("--weights needs the model they belong to: add --model.")
            _machine(out)
            out.print("\nName a model to look into it: acclimate doctor --model file.py:function")
            return
        with Bars() as bars:
            name, model = choose_model(self.model, self.weights, "", progress=bars.training)
        _machine(out)
        _anatomy(out, name, model)
        self._methods(out, model)

    def _check_memory(self) -> None:
        if self.model is None and (self.memory or self.policy is not None):
            given = "--memory" if self.memory else "--policy"
            raise ValueError(f"{given} is about steps of a model: add --model.")
        if self.policy is None:
            return
        if not self.memory:
            raise ValueError("--policy says how a measured step keeps things: add --memory.")
        from acclimate.core.memory import policies

        policies.build(self.policy)

    def _methods(self, out: Console, model: nn.Module) -> None:
        import torch

        from acclimate.experiment.checkup import check, risk_of_one

        images = None
        if self.memory:
            images = torch.rand(self.batch, *self.input_size, generator=torch.Generator().manual_seed(0))
        out.print()
        checked = check(model, images, self.policy)
        out.print(_table(checked, measured=self.memory))
        out.print()
        _remarks(out, checked)
        out.print()
        out.print(f"Batches of one: {risk_of_one(model)}")
        if not self.memory:
            out.print("Add --memory to measure what a step keeps for its backward pass.", style="dim")


def _facts(out: Console, facts: dict[str, str]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    out.print(table)


def _machine(out: Console) -> None:
    from acclimate.experiment.environment import environment

    _facts(out, {name: str(value) for name, value in environment().items()})


def _anatomy(out: Console, name: str, model: nn.Module) -> None:
    from collections import Counter

    from acclimate.anatomy import head, norm_layers
    from acclimate.core.storage import fingerprint

    kinds = Counter(type(layer).__name__ for layer in norm_layers(model).values())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    classifier = head(model)
    told = "none found"
    if classifier is not None:
        told = f"{classifier[0]}: {classifier[1].in_features} features, {classifier[1].out_features} classes"
    out.print()
    _facts(
        out,
        {
            "model": f"{name} ({type(model).__name__})",
            "parameters": f"{parameters:,} in {len(list(model.parameters()))} tensors, {size / 1e6:.3g} MB",
            "norm layers": ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none",
            "head": told,
            "fingerprint": fingerprint(model),
        },
    )


def _table(checked: list[Checkup], *, measured: bool) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("method", no_wrap=True)
    for title in (
        "tensors",
        "parameters",
        "share",
        "state",
        *(("backward", "predicted", "by PyTorch") if measured else ()),
    ):
        table.add_column(title, justify="right", no_wrap=True)
    for one in checked:
        if one.reason is not None:
            continue
        extra = [readable_bytes(size) for size in (one.saved, one.predicted, one.stock)] if measured else []
        table.add_row(
            one.method,
            str(one.tensors),
            f"{one.parameters:,}",
            f"{one.share:.1%}",
            readable_bytes(one.state),
            *extra,
        )
    return table


def _remarks(out: Console, checked: list[Checkup]) -> None:
    # Below the table and each once: a column beside it has no room where the terminal is narrow.
    from rich.text import Text

    told: dict[tuple[str, str], list[str]] = {}
    for one in checked:
        if one.reason is not None or one.remark:
            told.setdefault((one.reason or one.remark, "yellow" if one.reason else ""), []).append(one.method)
    for (words, style), methods in told.items():
        out.print(Text.assemble((", ".join(methods), "bold"), ": ", (words, style)))
