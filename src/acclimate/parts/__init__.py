"""Organs that methods share."""
