"""What the rankers are put together from."""
