"""Freed memory, kept for the next step."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30  # mallopt takes an int


def keep_freed_memory() -> bool:
    """Ask the C library not to hand freed memory back to the system between steps; whether it agreed.

    A step frees what backward kept, hundreds of megabytes, and the next one faults every page in again:
    on Linux with glibc that can cost as much as the step itself. This sets it for the whole process, so an application
    calls it, never a library; the command line and the benchmarks do. Elsewhere it does nothing.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _LARGE), (_M_TOP_PAD, 1 << 26))
    return all(mallopt(option, value) == 1 for option, value in settings)
