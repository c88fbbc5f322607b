"""Training on every rank: delayed, compressed, error-feedback SGD whose replicas stay identical to the bit."""
