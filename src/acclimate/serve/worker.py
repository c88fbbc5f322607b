"""One of several processes that share the streams of a folder: a state server for its share, on a socket."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from acclimate.core.guard import Guard, build_guard
from acclimate.core.method import Method, methods
from acclimate.models import load_model
from acclimate.serve.running import serve
from acclimate.serve.settings import Limits, Settings

__all__ = ["main", "settings_of", "words_of"]

_log = logging.getLogger(__name__)


def words_of(settings: Settings) -> dict[str, Any]:
    """Settings as JSON values, for another process."""
    words = {each.name: getattr(settings, each.name) for each in fields(settings)}
    for name in ("method", "guard"):
        if isinstance(words[name], (Method, Guard)):
            words[name] = words[name].config()
    return words | {"limits": dict(vars(settings.limits)), "state_dir": os.fspath(settings.state_dir or "")}


def settings_of(words: Mapping[str, Any]) -> Settings:
    """Settings from the words of `words_of`. ValueError for a method that is not known here."""
    built: dict[str, Any] = {
        "method": methods.build(words["method"]),
        "guard": build_guard(words["guard"]),
        "limits": Limits(**words["limits"]),
        "state_dir": Path(words["state_dir"]) if words["state_dir"] else None,
        "source": tuple(words["source"] or ()) or None,
        "share": tuple(words["share"]),
    }
    return Settings(**{**words, **built})


def main(socket: str) -> int:
    """Read what to serve from the first line of the input, and serve until the input ends.

    Where the front has ended without a word, nobody else removes the sockets.
    """
    words = json.loads(sys.stdin.readline())
    number, workers = words["share"]
    form = f"%(asctime)s %(levelname)s worker {number} of {workers} %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)

    alone = threading.Event()

    def told_to_end() -> float | None:
        """Wait for the seconds that are left, or for the end of the front that would have told them."""
        line = os.read(sys.stdin.fileno(), 64)  # what Python buffers would be locked when it exits
        if line.strip():
            return float(line)
        alone.set()
        return None

    try:
        model = load_model(*words["source"])
        serve(settings_of(words), model, path=socket, until=told_to_end)
    except (ValueError, OSError) as error:
        _log.error("%s", error)
        return 1
    finally:
        if alone.is_set():
            _remove(Path(socket))
    return 0


def _remove(socket: Path) -> None:
    """A socket, and with the last one their folder."""
    with contextlib.suppress(OSError):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
