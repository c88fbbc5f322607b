"""Diffusion transformers whose self-attention goes through an exchange between devices."""
