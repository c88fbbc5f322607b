"""A paper's tables and figures, run again: trials, where they are kept, who runs them, how they are shown."""

from acclimate.experiment.reproduce.benchmarks import BENCHMARKS, Benchmark
from acclimate.experiment.reproduce.parts import PAPERS, Paper, choose_parts
from acclimate.experiment.reproduce.request import Request
from acclimate.experiment.reproduce.run import reproduce
from acclimate.experiment.reproduce.schedule import Crew
from acclimate.experiment.reproduce.site import Site
from acclimate.experiment.reproduce.store import Outcome, Store
from acclimate.experiment.reproduce.trial import Trial

__all__ = [
    "BENCHMARKS",
    "PAPERS",
    "Benchmark",
    "Crew",
    "Outcome",
    "Paper",
    "Request",
    "Site",
    "Store",
    "Trial",
    "choose_parts",
    "reproduce",
]
