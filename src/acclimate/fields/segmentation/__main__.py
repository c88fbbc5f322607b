"""`python -m acclimate.fields.segmentation`."""

from __future__ import annotations

import tyro

from acclimate.core.allocator import keep_freed_memory
from acclimate.fields.segmentation.command import Segment

if __name__ == "__main__":
    keep_freed_memory()
    tyro.cli(Segment, prog="python -m acclimate.fields.segmentation").execute()
