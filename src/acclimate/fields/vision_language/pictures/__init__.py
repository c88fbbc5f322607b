"""What training-free methods keep and compare, drawn."""

from acclimate.fields.vision_language.pictures.cache import cache_over_time, watch_cache
from acclimate.fields.vision_language.pictures.semantic_graph import semantic_graph
from acclimate.fields.vision_language.pictures.support import support_grid, supporters

__all__ = ["cache_over_time", "semantic_graph", "support_grid", "supporters", "watch_cache"]
