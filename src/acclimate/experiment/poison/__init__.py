"""Attacks on a model that adapts: rows that an attacker puts among those of others."""
