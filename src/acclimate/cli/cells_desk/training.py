"""`acclimate cells train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from acclimate.cli.command import Command, Interrupted, option

if TYPE_CHECKING:
    from acclimate.fields.cells.desk.model import CellModel
    from acclimate.fields.cells.desk.opening import Opened
    from acclimate.fields.cells.desk.problems import Trouble
    from acclimate.fields.cells.plan import Plan

__all__ = ["TrainCells"]


@dataclass(frozen=True, kw_only=True)
class TrainCells(Command):
    """Learn from pictures of blood cells: masks, codes that look past the laboratory, and classes.

    acclimate cells train wbc --out model --size unit

    acclimate cells train berlin quito --masks masks --out model

    A FOLDER is one laboratory, FOLDER/CLASS/IMAGE; one with images alone teaches without classes. Masks have the same
    paths below --masks DIR/FOLDER. A fifth of the labelled cells is held out to find out when an answer is unsure. The
    same command continues where it was interrupted.
    """

    folders: Annotated[tuple[str, ...], tyro.conf.Positional, option("FOLDER...")]
    """Laboratories; wbc stands for the four shared ones, wbc:jtsc for one of them (./wbc for a folder)."""
    out: Annotated[str, option("MODEL_DIR")]
    """Where to write the model; its stages are kept there, too."""
    masks: Annotated[str | None, option("DIR")] = None
    """Masks of the pictures: 0 background, 128 cytoplasm, 255 nucleus, or white cells on black."""
    without: Annotated[tuple[str, ...], option("DIR...")] = ()
    """Folders below FOLDER that are left out; those called mask or masks always are."""
    method: Annotated[Literal["dorl", "bcsam", "none", "hand-made"], option()] = "dorl"
    """An autoencoder, none (mean features) or hand-made (shape and colour), which did best in the docs' comparison."""
    size: Annotated[Literal["unit", "small"], option()] = "small"
    """Of the encoder: unit is for trying out, small takes some tens of minutes for a thousand cells."""
    classifier: Annotated[str, option("NAME")] = "logistic"
    """logistic, forest, boosting, svm, svm-poly, svm-linear or neural."""
    epochs: Annotated[int | None, option("N")] = None
    """Of each stage, instead of its own number, 8 to 25; fewer are faster and worse."""
    error: Annotated[float, option("SHARE")] = 0.05
    """How many of the answers that are not called unsure may be wrong, in each laboratory."""
    most: Annotated[int, option("N")] = 2000
    """Cells of a laboratory that the encoder learns from; the classifier takes all that have a class."""
    seed: Annotated[int, option("N")] = 0
    """Of initial weights, order and who is held out."""
    threads: Annotated[int | None, option("N")] = None
    """Threads to compute with; torch decides by default."""

    def execute(self) -> None:
        from acclimate.cli.console import console
        from acclimate.cli.threads import use_threads
        from acclimate.fields.cells.desk.problems import told, write_problems

        self._check()
        if self.threads is not None:
            use_threads(self.threads)
        out, where = console(), Path(self.out).expanduser() / "problems.csv"
        opened = self._read()
        odd = self._odd(opened)
        for line in told(odd, str(where)):
            out.print(line, style="dim", soft_wrap=True, markup=False)
        model = self._train(opened)
        write_problems(where, odd)
        held = model.taught["held_out"]
        out.print(f"held out  {held['cells']} cells, {held['right'] / held['cells']:.1%} answered rightly")
        out.print(f"unsure    {model.promise}", soft_wrap=True, markup=False)
        for note in model.taught["notes"]:
            out.print(f"note      {note}", soft_wrap=True, markup=False)
        out.print(f"model     {self.out}", soft_wrap=True, markup=False)

    def _check(self) -> None:
        """ValueError for what need not wait until pictures are read."""
        from acclimate.core.config import one_of, whole
        from acclimate.fields.cells.classify.classifiers import CLASSIFIERS

        if not self.folders:
            raise ValueError("name a FOLDER with pictures, or wbc for the shared laboratories.")
        whole(1, **{"--most": self.most} | ({} if self.epochs is None else {"--epochs": self.epochs}))
        whole(0, **{"--seed": self.seed})
        one_of(*CLASSIFIERS, **{"--classifier": self.classifier})
        if not 0 < self.error < 1:
            raise ValueError(f"--error is {self.error}; expected a share between 0 and 1, such as 0.05.")

    def _read(self) -> Opened:
        from acclimate.cli.progress import Bar
        from acclimate.fields.cells.desk.opening import teaching
        from acclimate.fields.cells.sam.sizes import SIZES

        with Bar(width=24) as bar:
            return teaching(
                self.folders,
                self.masks,
                size=SIZES[self.size].image,
                without=self.without,
                progress=lambda what, done, total: bar.show(what, done, total, ""),
            )

    def _odd(self, opened: Opened) -> list[Trouble]:
        from acclimate.fields.cells.desk.copies import copies
        from acclimate.fields.cells.desk.problems import Trouble, of_failed

        own = [Trouble(each.name, problem) for each in opened.laboratories for problem in each.problems]
        return [*of_failed(opened.failed), *own, *copies(opened.laboratories)]

    def _train(self, opened: Opened) -> CellModel:
        from acclimate.cli.progress import Bar
        from acclimate.fields.cells.desk.training import train

        with Bar(width=24) as bar:
            try:
                return train(
                    opened.laboratories,
                    self._plan(),
                    self.out,
                    classifier=self.classifier,
                    error=self.error,
                    most=self.most,
                    progress=lambda what, done, total: bar.show(what, done, total, ""),
                )
            except KeyboardInterrupt as stop:
                raise Interrupted("interrupted; the same command continues after the last whole epoch.") from stop

    def _plan(self) -> Plan:
        from dataclasses import replace

        from acclimate.fields.cells.plan import Plan

        plan = Plan(method=self.method, size=self.size, seed=self.seed)
        if self.epochs is None:
            return plan
        start = None if plan.start is None else replace(plan.start, epochs=self.epochs)
        masks, codes = replace(plan.masks, epochs=self.epochs), replace(plan.learned, epochs=self.epochs)
        return replace(plan, start=start, masks=masks, training=codes)
