"""Experiments: a recipe becomes a graph of command lines, and the graph is run."""
