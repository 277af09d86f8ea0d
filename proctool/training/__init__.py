"""One training loop for warm-up, pretraining and diagnostics."""
