"""How many domains a batch holds: a score from an early layer, and rules that tell one domain from several."""
