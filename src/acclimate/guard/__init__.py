"""The guard: what is known of an adapting model, and what follows for its answers and updates."""
