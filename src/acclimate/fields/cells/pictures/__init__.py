"""Pictures of cells, of what was made of them, and of where their codes lie."""
