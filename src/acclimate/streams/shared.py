"""Where data and packages that are not part of the library are found."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType

__all__ = ["require", "shared_file", "shared_folder"]


def shared_folder() -> Path:
    """The folder of shared data and models: `$ACCLIMATE_SHARED`, else `../shared` from the current one."""
    return Path(os.environ.get("ACCLIMATE_SHARED") or "../shared")


def shared_file(relative: str, otherwise: str) -> Path:
    """A file of the shared folder.

    Arguments:
        relative: its path inside the folder.
        otherwise: what the user can do without it, for the error message.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = shared_folder() / relative
    if not path.is_file():
        origin = "" if os.environ.get("ACCLIMATE_SHARED") else ", the default of ACCLIMATE_SHARED"
        raise FileNotFoundError(
            f"There is no {relative} in {shared_folder().absolute()}{origin}. Set ACCLIMATE_SHARED to the "
            f"folder that holds it, or {otherwise}."
        )
    return path


def require(module: str, purpose: str, extra: str = "cli") -> ModuleType:
    """Import an optional package on first use.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{purpose} needs the package {module.partition(".")[0]!r}: pip install "acclimate[{extra}]".'
        ) from error
