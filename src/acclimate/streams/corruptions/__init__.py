"""The image corruptions of ImageNet-C and CIFAR-10-C, and two kinds of weather, for whole batches on any device."""

from acclimate.streams.corruptions.apply import corrupt
from acclimate.streams.corruptions.catalogue import CORRUPTIONS, EXTRA_CORRUPTIONS, WEATHER

__all__ = ["CORRUPTIONS", "EXTRA_CORRUPTIONS", "WEATHER", "corrupt"]
