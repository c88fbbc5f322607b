from __future__ import annotations
from dataclasses import dataclass
from acclimate.cli.command import Command
@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train."""
    def execute(self) -> None: ...
