"""What this machine offers a training run: facts, measures, and advice."""
