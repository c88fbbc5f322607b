"""Self-attention over the tokens of all devices: who sends what to whom, simulated in one process or between many."""
