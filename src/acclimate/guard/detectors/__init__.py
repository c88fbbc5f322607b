"""Detectors of change in a sequence of numbers, one number a batch."""
