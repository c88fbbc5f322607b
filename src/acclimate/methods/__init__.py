"""How weights move: one file per method, found by its decorator."""
