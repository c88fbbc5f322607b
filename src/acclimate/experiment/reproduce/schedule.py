"""Who runs the trials: this process, or several."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from acclimate.experiment.reproduce.perform import perform
from acclimate.experiment.reproduce.site import Site
from acclimate.experiment.reproduce.store import Outcome
from acclimate.experiment.reproduce.trial import Trial

__all__ = ["Crew", "Done", "Here", "Processes", "attempt"]

Done = tuple[Trial, Outcome | str]
"""A trial and its outcome, or the reason why it could not be run."""


_PATIENCE = 5.0
"""Seconds for a process that was told to end."""


class Crew(Protocol):
    """Runs trials in any order and hands each one over as it is done."""

    def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]: ...


def attempt(trial: Trial, site: Site) -> Outcome | str:
    """The outcome, or the reason: one method's fault must not take the other trials down."""
    try:
        return perform(trial, site)
    except (ValueError, RuntimeError, ImportError, OSError, ArithmeticError) as error:
        return " ".join(str(error).split()) or type(error).__name__


class Here:
    """One trial after the other in this process."""

    def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]:
        for trial in trials:
            yield trial, attempt(trial, site)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches the whole group of processes; the one that was started ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Processes:
    """So many processes, each with its own torch, started afresh: a fork would inherit torch's threads."""

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ValueError(f"jobs is {jobs}; expected 1 or more.")
        self.jobs = jobs

    def work(self, trials: Sequence[Trial], site: Site) -> Iterator[Done]:
        before = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(
            min(self.jobs, max(1, len(trials))),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_ignore_interrupts,
        )
        try:
            waiting: dict[Future[Outcome | str], Trial] = {pool.submit(attempt, each, site): each for each in trials}
            while waiting:
                finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield waiting.pop(future), future.result()
            pool.shutdown()
        except BrokenProcessPool as error:
            raise OSError(
                "a process that ran a trial was ended from outside, perhaps for its memory. Finished trials are kept: "
                "give the same command again with fewer --jobs."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in (ours := set(multiprocessing.active_children()) - before):
                child.terminate()
            for child in ours:
                child.join(_PATIENCE)
            raise
