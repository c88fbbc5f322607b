"""Time to accuracy across links, latencies and policies."""

from acclimate.fields.wide_area.reproduction.run import reproduce_decosgd

__all__ = ["reproduce_decosgd"]
