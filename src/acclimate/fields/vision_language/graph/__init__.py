"""Classes as nodes of a graph, and what its cliques stand for."""
