"""More compute at inference: merging against widening, deepening and wider embeddings."""

from acclimate.fields.recommendation.reproduction.run import reproduce_scaling

__all__ = ["reproduce_scaling"]
