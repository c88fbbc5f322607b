"""What backward keeps: policies found by their decorator, the engine that applies them, and the meter."""
