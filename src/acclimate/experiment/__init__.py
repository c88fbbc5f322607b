"""Experiments: run methods over a stream, record everything, compare, plot, report."""

from acclimate.experiment.paired import Difference, paired_difference
from acclimate.experiment.record import Record, read_record
from acclimate.experiment.results import Results, load_results
from acclimate.experiment.run import Plan, Progress, Step, run
from acclimate.experiment.source import SourceImages

__all__ = [
    "Difference",
    "Plan",
    "Progress",
    "Record",
    "Results",
    "SourceImages",
    "Step",
    "load_results",
    "paired_difference",
    "read_record",
    "run",
]
