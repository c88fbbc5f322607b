"""Merging that follows a stream of clicks whose labels come late."""
