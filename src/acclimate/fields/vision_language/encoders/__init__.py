"""Encoders of images and texts from published checkpoints."""
