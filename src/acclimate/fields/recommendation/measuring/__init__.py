"""How good scores of clicks are, how sure a difference is, and how much members differ."""
