"""A small image-text model and a second encoder, trained here in minutes: real encoders where no others are at hand."""

from acclimate.fields.vision_language.tiny.captions import Captions, looks
from acclimate.fields.vision_language.tiny.towers import TinyClip, TinyPrompts, TinySight, tiny_clip, tiny_sight
from acclimate.fields.vision_language.tiny.training import TINY, load_tiny

__all__ = [
    "TINY",
    "Captions",
    "TinyClip",
    "TinyPrompts",
    "TinySight",
    "load_tiny",
    "looks",
    "tiny_clip",
    "tiny_sight",
]
