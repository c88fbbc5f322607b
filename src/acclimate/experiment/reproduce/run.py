"""Round after round: what the tables still need is run, until they need nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from acclimate.experiment.reproduce.part import Part
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.schedule import Crew
from acclimate.experiment.reproduce.site import Site
from acclimate.experiment.reproduce.store import Store
from acclimate.experiment.reproduce.trial import Trial
from acclimate.experiment.reproduce.write import write_all

__all__ = ["Progress", "reproduce"]

Progress = Callable[[int, int, Trial, float | str], None]
"""Called with finished and known trials, the last one, and its mean error or the reason why it has none."""


def reproduce(
    parts: Sequence[Part],
    request: Request,
    site: Site,
    folder: Path,
    *,
    crew: Crew | None,
    title: str,
    about: str = "",
    progress: Progress | None = None,
) -> tuple[Path, Path, dict[str, str]]:
    """Run what is missing, then write all tables and figures; without a crew only the latter.

    Finished trials are in `folder/trials`, and are not run again. An interruption leaves those that were
    finished, and the tables of what is known by then.

    Returns the markdown file, the HTML file, and the reasons of trials that could not be run, by key.
    """
    store = Store(folder)
    failed: dict[str, str] = {}
    try:
        while crew is not None:
            wanted = {trial.key: trial for part in parts for trial in part.wanted(request, store, failed)}
            todo = [trial for trial in store.missing(list(wanted.values())) if trial.key not in failed]
            if not todo:
                break
            done = len(wanted) - len(todo)
            for trial, outcome in crew.work(todo, site):
                done += 1
                if isinstance(outcome, str):
                    failed[trial.key] = outcome
                else:
                    store.add(trial, outcome)
                if progress is not None:
                    told = outcome if isinstance(outcome, str) else outcome.mean_error()
                    progress(done, len(wanted), trial, told)
    finally:
        shown = [part.show(request, store, failed) for part in parts]
        markdown, html = write_all(folder, title, about, shown)
    return markdown, html, failed
