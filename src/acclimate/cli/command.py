"""What all commands share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import tyro

__all__ = ["Command", "Interrupted"]


class Interrupted(Exception):
    """The user stopped a command that left something to continue from; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A subcommand: its fields are the options."""

    debug: Annotated[bool, tyro.conf.arg(help="Show the whole traceback of an error.")] = False

    @abstractmethod
    def execute(self) -> None:
        """Do it. ValueError, OSError and ImportError are the user's to mend and are told in one line."""
