"""What all commands share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

__all__ = ["Command", "Interrupted", "option"]


def _hint(default: str) -> str:
    return "" if default in ("", "None", "False") else f"(default: {default})"


def option(metavar: str | None = None) -> Any:
    """How an option looks in the help: its placeholder, and its default only where it says something."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=_hint)


class Interrupted(Exception):
    """The user stopped a command that left something to continue from; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A subcommand: its fields are the options."""

    debug: Annotated[bool, option()] = False
    """Show the whole traceback of an error."""

    @abstractmethod
    def execute(self) -> None:
        """Do it. ValueError, OSError and ImportError are the user's to mend and are told in one line."""
