"""Models that rank: from the ids of a row's fields to one logit."""
