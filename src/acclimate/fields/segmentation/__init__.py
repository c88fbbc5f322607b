"""Test-time adaptation of segmentation networks on road scenes under changing weather.

`reproduce_camvid` is imported when it is asked for: it draws.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from acclimate.fields.segmentation.comparison import Cell, Comparison, compare
from acclimate.fields.segmentation.roads import ROAD_CLASSES, acdc, cityscapes
from acclimate.fields.segmentation.scores import Confusion
from acclimate.fields.segmentation.source import evaluate, source_segmenter
from acclimate.fields.segmentation.views import StillViews, with_still_views
from acclimate.fields.segmentation.weather import CONDITIONS, acdc_stream, weather_stream
from acclimate.streams.camvid import CAMVID_CLASSES, camvid
from acclimate.streams.scenes import VOID, LazyMaps, Scenes

if TYPE_CHECKING:
    from acclimate.fields.segmentation.reproduction import reproduce_camvid

__all__ = [
    "CAMVID_CLASSES",
    "CONDITIONS",
    "ROAD_CLASSES",
    "VOID",
    "Cell",
    "Comparison",
    "Confusion",
    "LazyMaps",
    "Scenes",
    "StillViews",
    "acdc",
    "acdc_stream",
    "camvid",
    "cityscapes",
    "compare",
    "evaluate",
    "reproduce_camvid",
    "source_segmenter",
    "weather_stream",
    "with_still_views",
]


def __getattr__(name: str) -> object:
    if name != "reproduce_camvid":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.reproduction").reproduce_camvid
