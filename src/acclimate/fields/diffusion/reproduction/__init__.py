"""Quality, bytes and seconds of compressed exchanges, on models that are trained here."""

from acclimate.fields.diffusion.reproduction.run import reproduce_compactfusion

__all__ = ["reproduce_compactfusion"]
