"""Which staleness and which compression: the time model, the noise factors, stability, and the rules that choose."""
