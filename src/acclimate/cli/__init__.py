"""The command line: `acclimate run | compare | report | methods | doctor | train`.

Nothing here is imported by the library; the packages it stands on come with `pip install "acclimate[cli]"`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["main"]

_NEEDS = ("tyro", "rich", "matplotlib")


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 for a failure, 2 for a mistake in use, 130 after Ctrl-C."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f'acclimate: the command line needs {", ".join(missing)}: pip install "acclimate[cli]".\n')
        return 2
    from acclimate.cli.app import launch

    return launch(sys.argv[1:] if args is None else list(args))
