from __future__ import annotations
from dataclasses import dataclass
from acclimate.cli.command import Command
@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Compare."""
    def execute(self) -> None: ...
