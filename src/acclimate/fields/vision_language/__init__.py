"""Vision-language models that adapt at test time, most of them without a gradient."""

from acclimate.fields.vision_language.entry import adapt
from acclimate.fields.vision_language.method import OneByOne, registry
from acclimate.fields.vision_language.model import VisionLanguage

__all__ = ["OneByOne", "VisionLanguage", "adapt", "registry"]
