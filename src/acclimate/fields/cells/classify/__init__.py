"""From features of cells to their types: classifiers, scores, the protocol across laboratories, baselines."""
