"""Packets between processes: a transport gathers one of every rank, in order, and knows how long it took."""
