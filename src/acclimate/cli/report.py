from __future__ import annotations
from dataclasses import dataclass
from acclimate.cli.command import Command
@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Report."""
    def execute(self) -> None: ...
