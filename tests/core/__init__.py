"""Unit tests of `acclimate.core`."""
