"""The papers' comparison on four laboratories: which features let a classifier of one serve in another."""

from acclimate.fields.cells.reproduction.run import reproduce_cells

__all__ = ["reproduce_cells"]
