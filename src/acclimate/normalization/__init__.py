"""How statistics are estimated: one file per normalisation, found by its decorator."""
