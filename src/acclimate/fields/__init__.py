"""Whole applications on the floors below."""
