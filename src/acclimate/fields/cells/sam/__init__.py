"""A segmenter of cells on SAM's image encoder: low-rank adapters, and a decoder without prompts."""
