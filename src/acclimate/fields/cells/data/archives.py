"""Archives of many small image files in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from acclimate.streams.shared import require

__all__ = ["arrays", "unpacked"]


def arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` archive.

    Raises:
        ValueError: it is damaged or lacks one of them.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is not a readable archive of cells ({error}); expected the arrays {', '.join(names)}. Fetch the "
            "file again."
        ) from error


def unpacked(path: Path, stored: Mapping[str, NDArray[Any]], kind: str, mode: str) -> list[NDArray[np.uint8]]:
    """The decoded files of an archive: file `i` is `stored[kind][offset[i]:offset[i + 1]]`.

    Arguments:
        path: of the archive, for error messages.
        stored: its arrays.
        kind: name of the bytes; that of their offsets has `offset` for its last word.
        mode: `RGB`, or `L` for grey.

    Raises:
        ValueError: a file that cannot be decoded.
        ImportError: pillow is not installed.
    """
    pillow = require("PIL.Image", "Reading image files")
    data, offset = stored[kind].tobytes(), stored[f"{kind.rpartition('_')[0]}_offset"].tolist()
    found: list[NDArray[np.uint8]] = []
    for i, (start, end) in enumerate(pairwise(offset)):
        try:
            found.append(np.array(pillow.open(BytesIO(data[start:end])).convert(mode)))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"File {i} of {kind} in {path} cannot be decoded ({error}); expected an image. Fetch the archive again."
            ) from error
    return found
