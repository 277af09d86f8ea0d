"""proctool: procedural pretraining, from rules to warmed-up language models."""

__version__ = "0.1.0"
