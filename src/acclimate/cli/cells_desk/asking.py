"""`acclimate cells embed`, `classify` and `report`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from acclimate.cli.command import Command, option

if TYPE_CHECKING:
    from acclimate.fields.cells.desk.answering import Answers
    from acclimate.fields.cells.desk.model import CellModel

__all__ = ["Classify", "Embed", "Report"]


@dataclass(frozen=True, kw_only=True)
class _Asking(Command):
    """What the commands that use a model have in common."""

    model: Annotated[str, tyro.conf.Positional, option("MODEL_DIR")]
    """The folder of a trained model."""
    folders: Annotated[tuple[str, ...], tyro.conf.Positional, option("FOLDER...")]
    """Laboratories: every image below a folder; wbc stands for the four shared ones, wbc:chula for one of them."""
    without: Annotated[tuple[str, ...], option("DIR...")] = ()
    """Folders below FOLDER that are left out, such as one of masks."""
    threads: Annotated[int | None, option("N")] = None
    """Threads to compute with; torch decides by default."""

    def _answers(self) -> tuple[CellModel, list[Answers]]:
        from acclimate.cli.progress import Bar
        from acclimate.cli.threads import use_threads
        from acclimate.fields.cells.desk.answering import answers
        from acclimate.fields.cells.desk.model import CellModel
        from acclimate.fields.cells.desk.opening import asked
        from acclimate.fields.cells.sam.sizes import SIZES

        if self.threads is not None:
            use_threads(self.threads)
        if not self.folders:
            raise ValueError("name a FOLDER with pictures, or wbc for the shared laboratories.")
        model = CellModel.load(self.model)
        size = SIZES[model.encoder.plan.size].image
        with Bar(width=24) as bar:

            def tell(what: str, done: int, total: int) -> None:
                bar.show(what, done, total, "")

            laboratories = asked(self.folders, model.classes, size=size, without=self.without, progress=tell)
            return model, [answers(model, each, progress=tell) for each in laboratories]

    def _tell(self, model: CellModel, found: list[Answers], path: str) -> None:
        from acclimate.cli.console import console
        from acclimate.fields.cells.desk.answering import summary

        for line in (*summary(found, model), f"written to {path}"):
            console().print(line, soft_wrap=True, markup=False)


@dataclass(frozen=True, kw_only=True)
class Embed(_Asking):
    """Write the codes of cells, for other programs.

    acclimate cells embed model quito --out codes.npz

    Codes are float32, with the key of each picture and its class where its folder has the name of one. An .npz needs no
    pickle; a .csv has a line for each cell.
    """

    out: Annotated[str, option("FILE.npz|FILE.csv")]
    """Where to write."""

    def execute(self) -> None:
        from acclimate.fields.cells.desk.tables import check_suffix, write_codes

        path = check_suffix(self.out, ".npz", ".csv")
        model, found = self._answers()
        write_codes([each.laboratory for each in found], [each.sight for each in found], path)
        self._tell(model, found, self.out)


@dataclass(frozen=True, kw_only=True)
class Classify(_Asking):
    """Name the cells on pictures, with probabilities, and say of which the answer is unsure.

    acclimate cells classify model new-slides --out answers.csv

    A line for each picture: its key, the class, the probability of each class, whether the answer is unsure, and what
    is wrong with the file. Pictures that cannot be read are named and have no answer.
    """

    out: Annotated[str, option("FILE.csv")]
    """Where to write."""

    def execute(self) -> None:
        from acclimate.fields.cells.desk.tables import check_suffix, write_answers

        path = check_suffix(self.out, ".csv")
        model, found = self._answers()
        write_answers(found, model.classes, path)
        self._tell(model, found, self.out)


@dataclass(frozen=True, kw_only=True)
class Report(_Asking):
    """Write one HTML page with pictures of each class, doubtful cells, masks, plots of codes, scores and problems.

    acclimate cells report model quito --out report.html

    acclimate cells report model wbc --out report.html

    The page needs no other file. Scores are given where pictures lie in folders with the names of classes, on those
    that the classifier was not fitted on.
    """

    out: Annotated[str, option("FILE.html")]
    """Where to write."""

    def execute(self) -> None:
        import shlex
        import sys

        from acclimate.fields.cells.desk.report import write_report
        from acclimate.fields.cells.desk.tables import check_suffix

        path = check_suffix(self.out, ".html", ".htm")
        model, found = self._answers()
        write_report(path, found, model, f"Written by {shlex.join(['acclimate', *sys.argv[1:]])}")
        self._tell(model, found, self.out)
