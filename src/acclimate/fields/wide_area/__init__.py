"""Data-parallel training over slow, changing links: staleness and compression chosen together."""
