"""The process of one member: a file handle to answer over, the member's file, modules to import first."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import Any

from acclimate.fields.recommendation.serving.worker import work


def main(handle: str, path: str, *modules: str) -> None:
    """Answer until the other end closes."""
    wire: Connection[Any, Any] = Connection(int(handle))
    with wire:
        work(path, wire, *modules)


if __name__ == "__main__":
    main(*sys.argv[1:])
