from __future__ import annotations
from dataclasses import dataclass
from acclimate.cli.command import Command
@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Doctor."""
    def execute(self) -> None: ...
