"""Small tasks on which training across slow links is compared."""

from collections.abc import Callable, Mapping

from acclimate.fields.wide_area.workloads.images import cifar10, digits
from acclimate.fields.wide_area.workloads.text import characters
from acclimate.fields.wide_area.workloads.workload import SHARDS, Workload, shards

__all__ = ["SHARDS", "WORKLOADS", "Workload", "shards"]

WORKLOADS: Mapping[str, Callable[[], Workload]] = {"digits": digits, "cifar10": cifar10, "characters": characters}
"""By name."""
