"""Figures of results. They are matplotlib figures of their own: no global state, no window, no display."""

from acclimate.experiment.plots.cost import cost_bars, memory_bars
from acclimate.experiment.plots.gain import gain_over_source
from acclimate.experiment.plots.heat import count_map, gain_map, heat_map, share_map
from acclimate.experiment.plots.mix import domain_mix
from acclimate.experiment.plots.peak import Point, against_peak
from acclimate.experiment.plots.style import to_svg
from acclimate.experiment.plots.time import error_over_time

__all__ = [
    "Point",
    "against_peak",
    "cost_bars",
    "count_map",
    "domain_mix",
    "error_over_time",
    "gain_map",
    "gain_over_source",
    "heat_map",
    "memory_bars",
    "share_map",
    "to_svg",
]
