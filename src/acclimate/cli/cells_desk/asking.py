"""`acclimate cells embed`, `classify` and `report`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from acclimate.cli.command import Command, option

if TYPE_CHECKING:
    from pathlib import Path

    from acclimate.fields.cells.desk.answering import Answers
    from acclimate.fields.cells.desk.model import CellModel
    from acclimate.fields.cells.desk.problems import Failed

__all__ = ["Classify", "Embed", "Report"]


class _Looked(NamedTuple):
    model: CellModel
    found: list[Answers]
    failed: tuple[Failed, ...]


@dataclass(frozen=True, kw_only=True)
class _Asking(Command):
    """What the commands that use a model have in common."""

    model: Annotated[str, tyro.conf.Positional, option("MODEL_DIR")]
    """The folder of a trained model."""
    folders: Annotated[tuple[str, ...], tyro.conf.Positional, option("FOLDER...")]
    """Laboratories: every image below a folder; wbc stands for the four shared ones, wbc:chula for one of them."""
    without: Annotated[tuple[str, ...], option("DIR...")] = ()
    """Folders below FOLDER that are left out; those called mask or masks always are."""
    threads: Annotated[int | None, option("N")] = None
    """Threads to compute with; torch decides by default."""

    def _look(self, path: Path) -> _Looked:
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

            opened = asked(self.folders, model.classes, size=size, without=self.without, progress=tell)
            if not opened.laboratories:
                self._nothing(path, model, opened.failed)
            opened.check()
            return _Looked(model, [answers(model, each, progress=tell) for each in opened.laboratories], opened.failed)

    def _nothing(self, path: Path, model: CellModel, failed: tuple[Failed, ...]) -> None:
        """What is written where no picture can be read."""

    def _tell(self, looked: _Looked, path: Path, *, codes: bool = False) -> None:
        from acclimate.cli.console import console
        from acclimate.fields.cells.desk.answering import summary, troubles
        from acclimate.fields.cells.desk.problems import write_problems
        from acclimate.fields.cells.desk.tables import beside

        odd = troubles(looked.found, looked.failed)
        if odd:
            write_problems(beside(path), odd)
        else:
            beside(path).unlink(missing_ok=True)
        lines = summary(looked.found, looked.model, looked.failed, codes=codes)
        for line in (*lines, *([f"problems are in {beside(path)}"] if odd else []), f"written to {path}"):
            console().print(line, soft_wrap=True, markup=False)


@dataclass(frozen=True, kw_only=True)
class Embed(_Asking):
    """Write the codes of cells, for other programs.

    acclimate cells embed model quito --out codes.npz

    Codes are float32, with the key of each picture and its class where its folder has the name of one. An .npz needs no
    pickle; a .csv has a line for each cell. Both name what is odd about a picture, and those that could not be read.
    """

    out: Annotated[str, option("FILE.npz|FILE.csv")]
    """Where to write."""

    def execute(self) -> None:
        from acclimate.fields.cells.desk.tables import check_suffix, write_codes

        path = check_suffix(self.out, ".npz", ".csv")
        looked = self._look(path)
        write_codes(looked.found, path, looked.failed)
        self._tell(looked, path, codes=True)


@dataclass(frozen=True, kw_only=True)
class Classify(_Asking):
    """Name the cells on pictures, with probabilities, and say of which the answer is unsure.

    acclimate cells classify model new-slides --out answers.csv

    A line for each picture: its key, the class, the probability of each class, whether the answer is unsure, and what
    is wrong with the file. Pictures that cannot be read are named and have no answer. All problems, the gravest first,
    are in FILE-problems.csv, too.
    """

    out: Annotated[str, option("FILE.csv")]
    """Where to write."""

    def execute(self) -> None:
        from acclimate.fields.cells.desk.tables import check_suffix, write_answers

        path = check_suffix(self.out, ".csv")
        looked = self._look(path)
        write_answers(looked.found, looked.model.classes, path, looked.failed)
        self._tell(looked, path)

    def _nothing(self, path: Path, model: CellModel, failed: tuple[Failed, ...]) -> None:
        from acclimate.fields.cells.desk.tables import write_answers

        write_answers([], model.classes, path, failed)


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
        looked = self._look(path)
        about = f"Written by {shlex.join(['acclimate', *sys.argv[1:]])}"
        write_report(path, looked.found, looked.model, about, looked.failed)
        self._tell(looked, path)
