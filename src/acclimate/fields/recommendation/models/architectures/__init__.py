"""One file per architecture, found by its decorator."""
