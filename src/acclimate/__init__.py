"""Keep a deployed PyTorch model accurate when the world shifts."""
