"""Vision-language models that adapt at test time, most of them without a gradient.

`reproduce_cosmic` is imported when it is asked for: it writes pages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from acclimate.fields.vision_language.data.catalogue import DATASETS, Facts
from acclimate.fields.vision_language.data.folders import class_folders
from acclimate.fields.vision_language.data.images import ImageBatches, LabelledImages
from acclimate.fields.vision_language.data.names import read_names
from acclimate.fields.vision_language.data.opening import open_images
from acclimate.fields.vision_language.data.splits import listed_images, split_file
from acclimate.fields.vision_language.encoders.auxiliary import load_auxiliary
from acclimate.fields.vision_language.encoders.clip import Clip, load_clip
from acclimate.fields.vision_language.encoders.images import ImageEncoder
from acclimate.fields.vision_language.encoders.openclip import load_open_clip
from acclimate.fields.vision_language.encoding import encode_features
from acclimate.fields.vision_language.entry import adapt
from acclimate.fields.vision_language.evaluation import Outcome, evaluate, evaluate_methods
from acclimate.fields.vision_language.feature_files import read_features, write_features
from acclimate.fields.vision_language.features import FeatureBatch, Features
from acclimate.fields.vision_language.method import OneByOne, registry
from acclimate.fields.vision_language.model import VisionLanguage
from acclimate.fields.vision_language.oracle import WeightGrid, oracle_weights, transfer
from acclimate.fields.vision_language.prompted import PromptedTexts
from acclimate.fields.vision_language.texts.descriptions import load_descriptions
from acclimate.fields.vision_language.texts.matrix import text_matrix
from acclimate.fields.vision_language.texts.templates import TEMPLATES

if TYPE_CHECKING:
    from acclimate.fields.vision_language.reproduction import reproduce_cosmic

__all__ = [
    "DATASETS",
    "TEMPLATES",
    "Clip",
    "Facts",
    "FeatureBatch",
    "Features",
    "ImageBatches",
    "ImageEncoder",
    "LabelledImages",
    "OneByOne",
    "Outcome",
    "PromptedTexts",
    "VisionLanguage",
    "WeightGrid",
    "adapt",
    "class_folders",
    "encode_features",
    "evaluate",
    "evaluate_methods",
    "listed_images",
    "load_auxiliary",
    "load_clip",
    "load_descriptions",
    "load_open_clip",
    "open_images",
    "oracle_weights",
    "read_features",
    "read_names",
    "registry",
    "reproduce_cosmic",
    "split_file",
    "text_matrix",
    "transfer",
    "write_features",
]


def __getattr__(name: str) -> object:
    if name != "reproduce_cosmic":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.reproduction").reproduce_cosmic
