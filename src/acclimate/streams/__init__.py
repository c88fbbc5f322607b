"""Data sets and the streams made of them: corruptions, orders, protocols, fingerprints."""

from acclimate.streams.camvid import camvid
from acclimate.streams.composition import Composition
from acclimate.streams.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, WEATHER, corrupt
from acclimate.streams.dataset import Dataset, LazyImages
from acclimate.streams.datasets import DATASETS, load_dataset
from acclimate.streams.image_folder import image_folder
from acclimate.streams.loader import from_loader
from acclimate.streams.mixed import Domain, MixedStream
from acclimate.streams.mixes import MIX_ORDERS, mix
from acclimate.streams.opening import ORDERS, open_stream, stream_dataset
from acclimate.streams.rounds import RoundsStream
from acclimate.streams.scenes import VOID, Scenes
from acclimate.streams.segments import CLEAN, MIXED_SETTINGS, SETTINGS, Segment, plan_segments
from acclimate.streams.stream import Batch, DatasetStream, Stream, domain_histogram

__all__ = [
    "CLEAN",
    "CORRUPTIONS",
    "DATASETS",
    "EXTRA_CORRUPTIONS",
    "MIXED_SETTINGS",
    "MIX_ORDERS",
    "ORDERS",
    "SETTINGS",
    "VOID",
    "WEATHER",
    "Batch",
    "Composition",
    "Dataset",
    "DatasetStream",
    "Domain",
    "LazyImages",
    "MixedStream",
    "RoundsStream",
    "Scenes",
    "Segment",
    "Stream",
    "camvid",
    "corrupt",
    "domain_histogram",
    "from_loader",
    "image_folder",
    "load_dataset",
    "mix",
    "open_stream",
    "plan_segments",
    "stream_dataset",
]
